# Mask R-CNN, E-SpikeFormer 19M, T = 1, D = 4, COCO, 12 epochs.
_base_ = "./mask-rcnn_espikeformer-10m_t1-d4_2xb4-12e_coco.py"

width = 256
model = dict(
    backbone=dict(arch="19M", init_cfg=dict(checkpoint=_base_.pretrained_espikeformer_19m)),
    neck=dict(in_channels=[64, 128, 256, 360], out_channels=width),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=1024),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(in_channels=width, conv_out_channels=width),
    ),
)
