# COCO under data/coco/ as mmdet reads it. In training, short sides of 480 to 800 pixels, every second
# image a random crop that is enlarged to that.
_base_ = "mmdet::_base_/datasets/coco_instance.py"

multi_scale = dict(
    type="RandomChoiceResize",
    scales=[(1333, short) for short in range(480, 801, 32)],
    keep_ratio=True,
)
train_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoice",
        transforms=[
            [multi_scale],
            [
                dict(
                    type="RandomChoiceResize",
                    scales=[(4200, short) for short in (400, 500, 600)],
                    keep_ratio=True,
                ),
                dict(
                    type="RandomCrop",
                    crop_type="absolute_range",
                    crop_size=(384, 600),
                    allow_negative_crop=True,
                ),
                multi_scale,
            ],
        ],
    ),
    dict(type="mmdet.PackDetInputs"),
]
# Workers are those of a process (a GPU); see docs/gpu.md.
train_dataloader = dict(num_workers=4, pin_memory=True, dataset=dict(pipeline=train_pipeline))
