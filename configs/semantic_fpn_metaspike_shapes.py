_base_ = "./semantic_fpn/semantic-fpn_metaspikeformer-4m_t1_1xb4-1300it_shapes-128x128.py"
