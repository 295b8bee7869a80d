# `make demo-cls`, from scratch: a classifier of 1.0 M parameters, at T = 1.
_base_ = [
    "../_base_/models/classifier_metaspike.py",
    "../_base_/datasets/shapes_folders.py",
    "../_base_/cls_runtime.py",
]

size = (64, 64)
epochs = 9  # of 93 iterations

model = dict(
    data_preprocessor=dict(num_classes=3),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[16, 32, 64, 96], num_heads=4),
        attn_init_size=size,
        init_cfg=None,
    ),
    head=dict(num_classes=3, in_channels=96, topk=1),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=1)
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
        by_epoch=True,
        begin=epochs // 2,
        end=epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=epochs))
log_processor = dict(window_size=20)
randomness = dict(seed=0)
