# COCO under data/coco/ as mmdet reads it, with short sides of 480 to 800 pixels in training.
_base_ = "mmdet::_base_/datasets/coco_instance.py"

train_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, short) for short in range(480, 801, 32)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="mmdet.PackDetInputs"),
]
# Workers are those of a process (a GPU); see docs/gpu.md.
train_dataloader = dict(num_workers=4, pin_memory=True, dataset=dict(pipeline=train_pipeline))
