# Mask R-CNN, Meta-SpikeFormer 55M, T = 1, COCO, 12 epochs: 74.4 M parameters.
_base_ = "./mask_rcnn_metaspike_coco.py"

model = dict(
    backbone=dict(arch="55M"),
    neck=dict(in_channels=[128, 256, 512, 640]),
)
