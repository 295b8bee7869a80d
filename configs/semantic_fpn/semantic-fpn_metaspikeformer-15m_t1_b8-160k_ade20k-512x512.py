# Semantic FPN, Meta-SpikeFormer 15M, T = 1, ADE20K, 512 x 512 crops, 160,000 iterations.
_base_ = [
    "../_base_/models/semantic_fpn_metaspike.py",
    "../_base_/pretrained.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/seg_runtime.py",
]

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=_base_.pretrained_15m)),
    decode_head=dict(num_classes=150),
)
