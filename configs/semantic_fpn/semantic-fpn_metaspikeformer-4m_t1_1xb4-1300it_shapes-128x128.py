# The segmentation demo: Semantic FPN on generated shapes, small enough for two CPU cores.
_base_ = [
    "../_base_/models/semantic_fpn_metaspike_4m.py",
    "../_base_/datasets/shapes_label_maps.py",
    "../_base_/seg_runtime.py",
]

size = (128, 128)
max_iters = 1300

model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(attn_init_size=size),
    decode_head=dict(num_classes=len(_base_.metainfo.classes)),
)
tta_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmseg"),
    dict(
        type="TestTimeAug",
        _scope_="mmseg",
        transforms=[
            [dict(type="Resize", scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.25)],
            [dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="mmseg.PackSegInputs")],
        ],
    ),
]

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
    visualization=dict(_scope_="mmseg", type="SegVisualizationHook"),
)
log_processor = dict(by_epoch=False, window_size=20)
randomness = dict(seed=0)
