_base_ = "./mask_rcnn/mask-rcnn_espikeformer-5m_t1-d4_1xb4-1k_shapes-128x128.py"
