# Cascade R-CNN, Meta-SpikeFormer 15M, T = 1, COCO, 12 epochs.
_base_ = [
    "../_base_/models/cascade_rcnn_metaspike.py",
    "../_base_/datasets/coco_detection_ms.py",
    "../_base_/schedules/adamw_12e.py",
    "mmdet::_base_/default_runtime.py",
]

pretrained = "checkpoints/metaspikeformer_15M.pth"  # see docs/transfer.md
model = dict(backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=pretrained)))

sync_bn = "torch"  # over all GPUs of a distributed run: 2 images are few for batch statistics
