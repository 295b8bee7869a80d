_base_ = "./semantic_fpn/semantic-fpn_metaspikeformer-15m_t1_b8-40k_voc12-512x512.py"
