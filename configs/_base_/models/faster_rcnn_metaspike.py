# Faster R-CNN as mmdet has it, with a spiking backbone (15M, T = 1), neck and heads.
_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "../hooks.py"]

model = dict(
    type="mmspike.det.SpikeFasterRCNN",
    neuron_cfg=dict(type="mmspike.LIF"),  # in backbone, neck and heads
    backbone=dict(
        _delete_=True,
        type="mmspike.MetaSpikeFormer",
        arch="15M",
        time_steps=1,
        out_indices=(1, 2, 3, 4),
    ),
    neck=dict(
        _delete_=True,
        type="mmspike.SpikeFPN",
        in_channels=[64, 128, 256, 360],
        in_strides=[4, 8, 16, 16],
        out_channels=256,
        num_outs=5,
    ),
    rpn_head=dict(type="mmspike.det.SpikeRPNHead"),
    roi_head=dict(
        type="mmspike.det.SpikeStandardRoIHead",
        bbox_roi_extractor=dict(type="mmspike.det.SpikeSingleRoIExtractor"),
        bbox_head=dict(type="mmspike.det.SpikeShared2FCBBoxHead"),
    ),
    # mmdet's, which wait for the GPU at every object, with the same results at once
    train_cfg=dict(
        rpn=dict(assigner=dict(type="mmspike.det.WholeMaxIoUAssigner")),
        rcnn=dict(assigner=dict(type="mmspike.det.WholeMaxIoUAssigner")),
    ),
)
