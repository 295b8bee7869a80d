# Semantic FPN, Meta-SpikeFormer 15M, T = 1, Pascal VOC 2012 (21 classes), 40,000 iterations.
_base_ = [
    "../_base_/models/semantic_fpn_metaspike.py",
    "../_base_/pretrained.py",
    "../_base_/datasets/voc12.py",
    "../_base_/schedules/adamw_40k.py",
    "../_base_/seg_runtime.py",
]

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=_base_.pretrained_15m)),
    decode_head=dict(num_classes=21),
)
