# Label maps of the generated shapes, 128 x 128 pixels: tools/dataset_converters/make_shapes.py
data_root = "data/shapes/"
metainfo = dict(
    classes=("background", "circle", "square", "triangle"),
    palette=[[60, 60, 60], [31, 119, 180], [255, 127, 14], [44, 160, 44]],
)
train_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmseg"),
    dict(type="LoadAnnotations"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmseg"),
    dict(type="LoadAnnotations"),
    dict(type="mmseg.PackSegInputs"),
]
dataset = dict(
    _scope_="mmseg",
    type="BaseSegDataset",
    data_root=data_root,
    metainfo=metainfo,
    img_suffix=".png",
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="train", seg_map_path="semseg/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="val", seg_map_path="semseg/val"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(_scope_="mmseg", type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
