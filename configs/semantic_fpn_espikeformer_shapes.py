_base_ = "./semantic_fpn/semantic-fpn_espikeformer-5m_t1-d4_1xb4-1300it_shapes-128x128.py"
