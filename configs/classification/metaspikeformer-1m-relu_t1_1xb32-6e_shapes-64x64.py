# `make demo-cls`, the teacher: the same network with ReLU for neurons, and attention that averages
# (docs/comparing.md).
_base_ = "./metaspikeformer-1m_t1_1xb32-9e_shapes-64x64.py"

epochs = 6

model = dict(neuron_cfg=dict(type="ReLU"), backbone=dict(attn_scale=None, attn_init_size=None))
train_cfg = dict(max_epochs=epochs)
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
default_hooks = dict(checkpoint=dict(interval=epochs))
