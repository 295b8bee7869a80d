# Images in train/ and val/, label maps (PNG, a number per pixel from 0, 255 for none) of the same
# names in semseg/train/ and semseg/val/. Images are brought to short sides of about 256 pixels.
data_root = "data/own/"
scale = (1024, 256)  # of an image's longer and shorter side, at most
train_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmseg"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(256, 256), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmseg"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations"),  # behind Resize: labels keep their size
    dict(type="mmseg.PackSegInputs"),
]
dataset = dict(_scope_="mmseg", type="BaseSegDataset", data_root=data_root)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="train", seg_map_path="semseg/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="val", seg_map_path="semseg/val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(_scope_="mmseg", type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
