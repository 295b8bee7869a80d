# From scratch in 1,000 steps: AdamW, 50 of them to warm up, cosine in the second half.
_base_ = "mmdet::_base_/default_runtime.py"

max_iters = 1000

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters // 4)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="mmspike.MergedGroupsConstructor",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
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
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters, by_epoch=False))
log_processor = dict(by_epoch=False, window_size=20)
randomness = dict(seed=0)
