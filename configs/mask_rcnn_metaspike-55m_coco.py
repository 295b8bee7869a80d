_base_ = "./mask_rcnn/mask-rcnn_metaspikeformer-55m_t1_8xb2-12e_coco.py"
