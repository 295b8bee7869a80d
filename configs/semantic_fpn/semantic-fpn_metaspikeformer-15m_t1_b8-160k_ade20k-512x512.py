# Semantic FPN, Meta-SpikeFormer 15M, T = 1, ADE20K, 512 x 512 crops, 160,000 iterations.
_base_ = [
    "../_base_/models/semantic_fpn_metaspike.py",
    "mmseg::_base_/datasets/ade20k.py",
    "../_base_/schedules/adamw_160k.py",
    "mmseg::_base_/default_runtime.py",
]

pretrained = "checkpoints/metaspikeformer_15M.pth"  # see docs/transfer.md
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=pretrained)),
    decode_head=dict(num_classes=150),
)
train_dataloader = dict(batch_size=8, pin_memory=True)  # 4 workers a GPU: docs/gpu.md

sync_bn = "torch"
