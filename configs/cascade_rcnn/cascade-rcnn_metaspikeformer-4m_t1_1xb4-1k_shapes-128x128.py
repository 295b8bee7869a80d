# Cascade R-CNN on the boxes of generated shapes, small enough for two CPU cores.
_base_ = [
    "../_base_/models/cascade_rcnn_metaspike.py",
    "../_base_/datasets/shapes_detection.py",
    "../_base_/schedules/adamw_1k.py",
]

width = 64  # of neck and heads
small = dict(in_channels=width, fc_out_channels=256, num_classes=len(_base_.classes))
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[32, 64, 128, 180], num_heads=4),
        attn_init_size=(128, 128),
    ),
    neck=dict(in_channels=[32, 64, 128, 180], out_channels=width),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[3, 4.5], ratios=[1.0]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=width, finest_scale=28
        ),
        bbox_head=[{**stage, **small} for stage in _base_.model.roi_head.bbox_head],
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=500, max_per_img=500),
        rcnn=[
            {**stage, "sampler": {**stage["sampler"], "num": 256}}
            for stage in _base_.model.train_cfg.rcnn
        ],
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)
# The predictors read few, binary numbers: at the common rate they learn last and slow the rest.
predictors = [
    "rpn_head.rpn_cls",
    "rpn_head.rpn_reg",
    *(f"roi_head.bbox_head.{i}.{name}" for i in range(3) for name in ("fc_cls", "fc_reg")),
]
optim_wrapper = dict(paramwise_cfg=dict(lr_mults=dict.fromkeys(predictors, 5.0)))
