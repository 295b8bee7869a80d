# Mask R-CNN, Meta-SpikeFormer 55M, T = 1, COCO, 12 epochs.
_base_ = "./mask-rcnn_metaspikeformer-15m_t1_8xb2-12e_coco.py"

model = dict(
    backbone=dict(arch="55M", init_cfg=dict(checkpoint=_base_.pretrained_55m)),
    neck=dict(in_channels=[128, 256, 512, 640]),
)
