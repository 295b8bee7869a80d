# Mask R-CNN with E-SpikeFormer (10M), neck and heads, all of whose neurons fire integers from 0 to 4.
_base_ = "./mask_rcnn_metaspike.py"

width = 192  # of neck and heads
model = dict(
    neuron_cfg=dict(_delete_=True, type="mmspike.IntegerLIF", levels=4),
    backbone=dict(
        _delete_=True,
        type="mmspike.ESpikeFormer",
        arch="10M",
        time_steps=1,
        out_indices=(1, 2, 3, 4),
    ),
    neck=dict(in_channels=[48, 96, 192, 240], out_channels=width),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=768),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(in_channels=width, conv_out_channels=width),
    ),
)
