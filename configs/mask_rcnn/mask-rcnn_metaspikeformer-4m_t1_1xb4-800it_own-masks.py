# Your own instance masks, in COCO's format: annotations/train.json and val.json, train/ and val/.
# From scratch at a small width, for a few hundred images: change the first three settings.
_base_ = "../mask_rcnn_metaspike_shapes.py"

data_root = "data/nuclei/"
classes = ("nucleus",)  # as the annotations name them
size = (256, 256)  # width and height into which images are scaled

model = dict(
    backbone=dict(attn_init_size=size[::-1]),
    rpn_head=dict(anchor_generator=dict(scales=[4], ratios=[0.5, 1.0, 2.0])),
    roi_head=dict(
        bbox_head=dict(num_classes=len(classes)), mask_head=dict(num_classes=len(classes))
    ),
)
load_image = dict(type="LoadImageFromFile")
load_masks = dict(type="LoadAnnotations", with_bbox=True, with_mask=True)
resize = dict(type="Resize", scale=size, keep_ratio=True)
flip = dict(type="RandomFlip", prob=0.5)
pack = dict(type="mmdet.PackDetInputs")
keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
pack_test = dict(type="mmdet.PackDetInputs", meta_keys=keys)
train_pipeline = [load_image, load_masks, resize, flip, pack]
test_pipeline = [load_image, resize, load_masks, pack_test]
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/val.json")
test_evaluator = val_evaluator

train_cfg = dict(max_iters=800, val_interval=200)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=400, end=800, eta_min_ratio=0.01),
]
default_hooks = dict(checkpoint=dict(interval=200, max_keep_ckpts=1))
