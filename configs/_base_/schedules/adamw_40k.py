# The published recipe for VOC 2012: 40,000 iterations at a tenth of the rate for ADE20K.
_base_ = "./adamw_160k.py"

train_cfg = dict(max_iters=40_000, val_interval=4_000)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=40_000),
]
default_hooks = dict(checkpoint=dict(interval=4_000))
