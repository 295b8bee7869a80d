# Mask R-CNN, E-SpikeFormer 10M, T = 1, D = 4, COCO, 12 epochs.
_base_ = [
    "../_base_/models/mask_rcnn_espike.py",
    "../_base_/pretrained.py",
    "../_base_/datasets/coco_instance_crop.py",
    "../_base_/schedules/adamw_12e_steps.py",
    "mmdet::_base_/default_runtime.py",
]

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=_base_.pretrained_espikeformer_10m)),
)
train_dataloader = dict(batch_size=4)
