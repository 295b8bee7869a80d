# RTMDet-s as mmdet has it on the maps of a spiking backbone (15M, T = 1), averaged over time.
# Neck and head are mmdet's own and not spiking: they compute with real values.
# The backbone ends at stride 16, and the first neck makes the level of stride 32.
_base_ = "../hooks.py"

norm_cfg = dict(type="BN")
act_cfg = dict(type="SiLU", inplace=True)
width = 128  # of neck and head
model = dict(
    _scope_="mmdet",
    type="RTMDet",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],  # RGB, as the backbone was pretrained; mmdet's is BGR
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        batch_augments=None,
    ),
    backbone=dict(
        type="mmspike.MetaSpikeFormer",
        arch="15M",
        time_steps=1,
        out_indices=(2, 4),
        decode="mean",
    ),
    neck=[
        dict(
            type="ChannelMapper",
            in_channels=[128, 360],
            out_channels=width,
            num_outs=3,
            kernel_size=1,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        ),
        dict(
            type="CSPNeXtPAFPN",
            in_channels=[width] * 3,
            out_channels=width,
            num_csp_blocks=1,
            expand_ratio=0.5,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        ),
    ],
    bbox_head=dict(
        type="RTMDetSepBNHead",
        num_classes=80,
        in_channels=width,
        stacked_convs=2,
        feat_channels=width,
        anchor_generator=dict(type="MlvlPointGenerator", offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type="DistancePointBBoxCoder"),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=2.0),
        with_objectness=False,
        exp_on_reg=False,
        share_conv=True,
        pred_kernel_size=1,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
    ),
    train_cfg=dict(
        assigner=dict(type="DynamicSoftLabelAssigner", topk=13),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=30000,
        min_bbox_size=0,
        score_thr=0.001,
        nms=dict(type="nms", iou_threshold=0.65),
        max_per_img=300,
    ),
)
