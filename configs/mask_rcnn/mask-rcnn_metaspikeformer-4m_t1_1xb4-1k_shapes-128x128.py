# The demo: Mask R-CNN on generated shapes of 128 x 128 pixels, small enough for two CPU cores.
_base_ = [
    "../_base_/models/mask_rcnn_metaspike.py",
    "../_base_/datasets/shapes_instance.py",
    "mmdet::_base_/default_runtime.py",
]

width = 64  # of neck and heads
max_iters = 1000

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[32, 64, 128, 180], num_heads=4),
        attn_init_size=_base_.size,
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
        bbox_head=dict(
            in_channels=width,
            fc_out_channels=256,
            num_classes=len(_base_.classes),
            reg_class_agnostic=True,
        ),
        mask_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=width, finest_scale=28
        ),
        mask_head=dict(
            num_convs=1,
            in_channels=width,
            conv_out_channels=width // 2,
            num_classes=len(_base_.classes),
            class_agnostic=True,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=500, max_per_img=500),
        rcnn=dict(sampler=dict(num=256)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters // 4)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
# The predictors read few, binary numbers: at the common rate they learn last and slow the rest.
predictors = (
    "rpn_head.rpn_cls",
    "rpn_head.rpn_reg",
    "roi_head.bbox_head.fc_cls",
    "roi_head.bbox_head.fc_reg",
    "roi_head.mask_head.conv_logits",
)
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="mmspike.MergedGroupsConstructor",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        lr_mults=dict.fromkeys(predictors, 5.0),
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
    ),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type="CosineAnnealingLR",
        by_epoch=False,
        begin=max_iters // 2,
        end=max_iters,
        eta_min_ratio=0.01,
    ),
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=max_iters, by_epoch=False),
)
log_processor = dict(by_epoch=False, window_size=20)
randomness = dict(seed=0)
