# RTMDet-s, Meta-SpikeFormer 15M averaged over T = 1, COCO, 12 epochs.
# Not mmdet's recipe, which is 300 epochs of mosaics, 256 images a step.
_base_ = [
    "../_base_/models/rtmdet_metaspike.py",
    "../_base_/datasets/coco_detection_ms.py",
    "../_base_/schedules/adamw_12e.py",
    "mmdet::_base_/default_runtime.py",
]

pretrained = "checkpoints/metaspikeformer_15M.pth"  # see docs/transfer.md
model = dict(backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=pretrained)))

sync_bn = "torch"  # over all GPUs of a distributed run: 2 images are few for batch statistics
