# Semantic FPN, Meta-SpikeFormer 15M, T = 1, Cityscapes (19 classes), 512 x 1024 crops.
# No result on Cityscapes is published for this model; the recipe is that of ADE20K.
_base_ = [
    "../_base_/models/semantic_fpn_metaspike.py",
    "mmseg::_base_/datasets/cityscapes.py",
    "../_base_/schedules/adamw_160k.py",
    "mmseg::_base_/default_runtime.py",
]

pretrained = "checkpoints/metaspikeformer_15M.pth"  # see docs/transfer.md
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=pretrained)),
)
train_dataloader = dict(batch_size=8)

sync_bn = "torch"
