_base_ = "./semantic_fpn/semantic-fpn_metaspikeformer-15m_t1_b8-160k_ade20k-512x512.py"
