_base_ = "./mask_rcnn/mask-rcnn_metaspikeformer-15m_t4_8xb2-8e_coco.py"
