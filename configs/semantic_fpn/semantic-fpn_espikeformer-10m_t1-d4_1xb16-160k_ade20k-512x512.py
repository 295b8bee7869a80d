# Semantic FPN, E-SpikeFormer 10M, T = 1, D = 4, ADE20K, 512 x 512 crops, 160,000 iterations of 16.
_base_ = [
    "../_base_/models/semantic_fpn_espike.py",
    "../_base_/pretrained.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/seg_runtime.py",
]

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=_base_.pretrained_espikeformer_10m)),
    decode_head=dict(num_classes=150),
)
train_dataloader = dict(batch_size=16)
# The published recipe: the head alone at twice the rate.
optim_wrapper = dict(paramwise_cfg=dict(lr_mults=dict(_delete_=True, decode_head=2.0)))
