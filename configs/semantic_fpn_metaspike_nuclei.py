_base_ = "./semantic_fpn/semantic-fpn_metaspikeformer-1m_t1_1xb4-3k_nuclei-256x256.py"
