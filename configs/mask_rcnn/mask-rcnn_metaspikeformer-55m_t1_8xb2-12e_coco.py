# Mask R-CNN, Meta-SpikeFormer 55M, T = 1, COCO, 12 epochs: 74.4 M parameters.
_base_ = "./mask-rcnn_metaspikeformer-15m_t1_8xb2-12e_coco.py"

pretrained = "checkpoints/metaspikeformer_55M.pth"  # see docs/transfer.md
model = dict(
    backbone=dict(arch="55M", init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=[128, 256, 512, 640]),
)
