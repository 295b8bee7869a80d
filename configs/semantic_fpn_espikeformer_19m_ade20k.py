_base_ = "./semantic_fpn/semantic-fpn_espikeformer-19m_t1-d4_1xb16-160k_ade20k-512x512.py"
