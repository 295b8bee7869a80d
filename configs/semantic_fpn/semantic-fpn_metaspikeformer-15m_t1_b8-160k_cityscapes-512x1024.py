# Semantic FPN, Meta-SpikeFormer 15M, T = 1, Cityscapes (19 classes), 512 x 1024 crops.
# No result on Cityscapes is published for this model; the recipe is that of ADE20K.
_base_ = [
    "../_base_/models/semantic_fpn_metaspike.py",
    "../_base_/pretrained.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/schedules/adamw_160k.py",
    "../_base_/seg_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=_base_.pretrained_15m)),
)
