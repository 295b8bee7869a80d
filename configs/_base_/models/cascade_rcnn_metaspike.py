# Cascade R-CNN as mmdet has it, with a spiking backbone (15M, T = 1), neck and heads: three stages
# of RoI heads, each of which refines the boxes of the one before.
_base_ = ["mmdet::_base_/models/cascade-rcnn_r50_fpn.py", "../hooks.py"]

bbox_head = dict(
    type="mmspike.det.SpikeShared2FCBBoxHead",
    in_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    num_classes=80,
    reg_class_agnostic=True,
    loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
)
box_coder = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0])
rcnn = dict(
    sampler=dict(
        type="RandomSampler", num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True
    ),
    pos_weight=-1,
    debug=False,
)
# mmdet's, which wait for the GPU at every object, with the same results at once
assigner = dict(type="mmspike.det.WholeMaxIoUAssigner", match_low_quality=False, ignore_iof_thr=-1)

model = dict(
    type="mmspike.det.SpikeCascadeRCNN",
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
        type="mmspike.det.SpikeCascadeRoIHead",
        bbox_roi_extractor=dict(type="mmspike.det.SpikeSingleRoIExtractor"),
        bbox_head=[
            {**bbox_head, "bbox_coder": {**box_coder, "target_stds": [0.1, 0.1, 0.2, 0.2]}},
            {**bbox_head, "bbox_coder": {**box_coder, "target_stds": [0.05, 0.05, 0.1, 0.1]}},
            {**bbox_head, "bbox_coder": {**box_coder, "target_stds": [0.033, 0.033, 0.067, 0.067]}},
        ],
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(type="mmspike.det.WholeMaxIoUAssigner")),
        rcnn=[
            {
                **rcnn,
                "assigner": {**assigner, "pos_iou_thr": t, "neg_iou_thr": t, "min_pos_iou": t},
            }
            for t in (0.5, 0.6, 0.7)
        ],
    ),
)
