# The published recipe for ImageNet from scratch: LAMB whose trust ratio is clipped at 1, at a rate of
# 6e-4 per 256 images. By its source:
#   README      8 GPUs of 128 images, base rate 6e-4, 200 epochs, 10 of them to warm up
#   code        LAMB and trust_clip; weight decay 0.05, none on what has one dimension; cosine to 1e-6
#               after a warm-up from 0, both per iteration; float16 (--amp)
#   timm        the gradient's norm is clipped to 1 inside LAMB, by default
# Neither drop path, which the published code builds and never applies, nor averaged weights.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=200, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

base_lr, batch = 6e-4, 8 * 128
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="mmspike.MergedGroupsConstructor",
    optimizer=dict(
        type="timm.optim.Lamb",
        lr=base_lr * batch / 256,
        weight_decay=0.05,
        trust_clip=True,
        max_grad_norm=1.0,
    ),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type="mmspike.WarmupLR", by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-6,
        by_epoch=True,
        begin=10,
        end=200,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=batch)
