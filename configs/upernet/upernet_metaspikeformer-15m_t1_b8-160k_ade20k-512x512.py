# An ordinary head on the spiking backbone: UPerNet, Meta-SpikeFormer 15M, T = 1, ADE20K.
_base_ = [
    "../_base_/models/upernet_metaspike.py",
    "../_base_/pretrained.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/seg_runtime.py",
]

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=_base_.pretrained_15m)),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
optim_wrapper = dict(
    paramwise_cfg=dict(lr_mults=dict(_delete_=True, decode_head=2.0, auxiliary_head=2.0))
)
