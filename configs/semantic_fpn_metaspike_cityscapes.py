_base_ = "./semantic_fpn/semantic-fpn_metaspikeformer-15m_t1_b8-160k_cityscapes-512x1024.py"
