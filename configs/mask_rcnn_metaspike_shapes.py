_base_ = "./mask_rcnn/mask-rcnn_metaspikeformer-4m_t1_1xb4-1k_shapes-128x128.py"
