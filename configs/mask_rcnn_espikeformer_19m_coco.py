_base_ = "./mask_rcnn/mask-rcnn_espikeformer-19m_t1-d4_2xb4-12e_coco.py"
