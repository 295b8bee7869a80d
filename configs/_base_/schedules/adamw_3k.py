# From scratch on a few hundred images: 3,000 iterations of 4, at a higher rate than for 160,000
# from ImageNet weights. The classifier reads few, binary numbers, and would learn last.
_base_ = "./adamw_160k.py"

train_cfg = dict(max_iters=3000, val_interval=750)
optim_wrapper = dict(
    optimizer=dict(lr=3e-3), paramwise_cfg=dict(lr_mults={"decode_head.conv_seg": 5.0})
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=3000),
]
default_hooks = dict(checkpoint=dict(interval=3000), logger=dict(interval=10))
