# The demo: Mask R-CNN on generated shapes of 128 x 128 pixels, small enough for two CPU cores.
# Data: python tools/dataset_converters/make_shapes.py
_base_ = ["../_base_/models/mask_rcnn_metaspike.py", "mmdet::_base_/default_runtime.py"]

data_root = "data/shapes/"
classes = ("circle", "square", "triangle")
size = (128, 128)
width = 64  # of neck and heads
max_iters = 1000

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
        bbox_head=dict(
            in_channels=width,
            fc_out_channels=256,
            num_classes=len(classes),
            reg_class_agnostic=True,
        ),
        mask_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=width, finest_scale=28
        ),
        mask_head=dict(
            num_convs=1,
            in_channels=width,
            conv_out_channels=width // 2,
            num_classes=len(classes),
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

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale=size, keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=size, keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
dataset = dict(type="CocoDataset", data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        ann_file="annotations/train.json",
        data_prefix=dict(img="train/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        ann_file="annotations/val.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="CocoMetric", ann_file=data_root + "annotations/val.json", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator

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
