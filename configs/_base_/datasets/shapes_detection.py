# Boxes of the generated shapes, 128 x 128 pixels: python tools/dataset_converters/make_shapes.py
data_root = "data/shapes/"
classes = ("circle", "square", "triangle")

# The steps of the pipelines have names, so that a config of other data restates them around its own;
# with their host's, since mmengine looks up what comes through "mmspike::" in the scope mmspike.
load_image = dict(type="LoadImageFromFile")
load_boxes = dict(type="mmdet.LoadAnnotations", with_bbox=True)
flip = dict(type="mmdet.RandomFlip", prob=0.5)
pack = dict(type="mmdet.PackDetInputs")
pack_test = dict(
    type="mmdet.PackDetInputs",
    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
)
resize = dict(type="Resize", scale=(128, 128), keep_ratio=True)

dataset = dict(
    _scope_="mmdet", type="CocoDataset", data_root=data_root, metainfo=dict(classes=classes)
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        ann_file="annotations/train.json",
        data_prefix=dict(img="train/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[load_image, load_boxes, resize, flip, pack],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        ann_file="annotations/val.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=[load_image, resize, load_boxes, pack_test],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _scope_="mmdet",
    type="CocoMetric",
    ann_file=data_root + "annotations/val.json",
    metric="bbox",
)
test_evaluator = val_evaluator
