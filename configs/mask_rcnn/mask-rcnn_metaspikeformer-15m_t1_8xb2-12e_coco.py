# Mask R-CNN, Meta-SpikeFormer 15M, T = 1, COCO, 12 epochs.
_base_ = [
    "../_base_/models/mask_rcnn_metaspike.py",
    "../_base_/pretrained.py",
    "../_base_/datasets/coco_instance_ms.py",
    "../_base_/schedules/adamw_12e.py",
    "mmdet::_base_/default_runtime.py",
]

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=_base_.pretrained_15m)),
)
