# DINO with four scales, Meta-SpikeFormer 15M averaged over T = 1, COCO, 12 epochs at mmdet's rates.
_base_ = [
    "../_base_/models/dino_metaspike.py",
    "../_base_/datasets/coco_detection_ms.py",
    "mmdet::_base_/default_runtime.py",
]

pretrained = "checkpoints/metaspikeformer_15M.pth"  # see docs/transfer.md
model = dict(backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=pretrained)))

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="mmspike.MergedGroupsConstructor",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(lr_mults=dict(backbone=0.1)),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = [
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[11], gamma=0.1)
]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 GPUs of 2 images

sync_bn = "torch"
