# The published COCO recipe for 12 epochs: AdamW, 4,000 iterations of warm-up, linear to 1 %.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="mmspike.MergedGroupsConstructor",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=4000),
    dict(
        type="LinearLR",
        start_factor=1.0,
        end_factor=0.01,
        by_epoch=True,
        begin=0,
        end=12,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 GPUs of 2 images

sync_bn = "torch"  # norms over all GPUs of a distributed run: 2 images are few for statistics
