# The published ADE20K recipe for the 15M model: AdamW, 1,500 iterations of warm-up, linear to 0 at
# 160,000, neck and head at twice the rate. It was trained in float16 (--amp) on 8 images per GPU.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160_000, val_interval=16_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="mmspike.MergedGroupsConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.005),
    paramwise_cfg=dict(
        lr_mults=dict(neck=2.0, decode_head=2.0),
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=160_000),
]
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=16_000, max_keep_ckpts=3),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(_scope_="mmseg", type="SegVisualizationHook"),
)
sync_bn = "torch"  # norms over all GPUs of a distributed run
