# Semantic FPN, Meta-SpikeFormer 15M, T = 1, Pascal VOC 2012 (21 classes): the published 40,000
# iterations at 1e-4.
_base_ = [
    "../_base_/models/semantic_fpn_metaspike.py",
    "mmseg::_base_/datasets/pascal_voc12.py",
    "../_base_/schedules/adamw_160k.py",
    "mmseg::_base_/default_runtime.py",
]

pretrained = "checkpoints/metaspikeformer_15M.pth"  # see docs/transfer.md
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=pretrained)),
    decode_head=dict(num_classes=21),
)
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_iters=40_000, val_interval=4_000)
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "end": 40_000},
]
default_hooks = dict(checkpoint=dict(interval=4_000))

sync_bn = "torch"
