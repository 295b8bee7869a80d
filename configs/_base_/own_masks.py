# What a Mask R-CNN for masks of one's own has besides paths, classes and size: a few hundred
# images, from scratch at a small width. Steps of the pipelines have names, to restate them.
_base_ = "../mask_rcnn_metaspike_shapes.py"

load_image = dict(type="LoadImageFromFile")
load_masks = dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True)
flip = dict(type="mmdet.RandomFlip", prob=0.5)
pack = dict(type="mmdet.PackDetInputs")
pack_test = dict(
    type="mmdet.PackDetInputs",
    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
)

model = dict(rpn_head=dict(anchor_generator=dict(scales=[4], ratios=[0.5, 1.0, 2.0])))
train_cfg = dict(max_iters=800, val_interval=200)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=400, end=800, eta_min_ratio=0.01),
]
default_hooks = dict(checkpoint=dict(interval=200, max_keep_ckpts=1))
