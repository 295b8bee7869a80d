# The segmentation demo: Semantic FPN on generated shapes of 128 x 128 pixels.
# Data: python tools/dataset_converters/make_shapes.py
_base_ = ["../_base_/models/semantic_fpn_metaspike.py", "mmseg::_base_/default_runtime.py"]

data_root = "data/shapes/"
metainfo = dict(
    classes=("background", "circle", "square", "triangle"),
    palette=[[60, 60, 60], [31, 119, 180], [255, 127, 14], [44, 160, 44]],
)
size = (128, 128)
width = 48  # of neck and head
max_iters = 1300

model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[32, 64, 128, 180], num_heads=4),
        out_indices=(1, 2, 3, 4),
        attn_init_size=(128, 128),
    ),
    neck=dict(
        in_channels=[32, 64, 128, 180], in_strides=[4, 8, 16, 16], out_channels=width, num_outs=3
    ),
    decode_head=dict(
        in_channels=[width] * 3,
        in_index=[0, 1, 2],
        feature_strides=[4, 8, 16],
        channels=width,
        num_classes=4,
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.25)],
            [dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
dataset = dict(type="BaseSegDataset", data_root=data_root, metainfo=metainfo, img_suffix=".png")
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="train", seg_map_path="semseg/train"),
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
        data_prefix=dict(img_path="val", seg_map_path="semseg/val"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters // 4)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
# The classifier reads few, binary numbers: at the common rate it learns last and slows the rest.
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="mmspike.MergedGroupsConstructor",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        lr_mults={"decode_head.conv_seg": 5.0}, norm_decay_mult=0.0, bias_decay_mult=0.0
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
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=max_iters),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
log_processor = dict(by_epoch=False, window_size=20)
randomness = dict(seed=0)
