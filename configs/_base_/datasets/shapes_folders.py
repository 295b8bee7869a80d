# Generated shapes to classify, one on each image of 64 x 64 pixels, in a folder for each class:
# tools/dataset_converters/make_shapes.py --layout folders
data_root = "data/shapes_folders/"
train_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmpretrain"),
    dict(type="Resize", scale=(64, 64)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmpretrain"),
    dict(type="Resize", scale=(64, 64)),
    dict(type="PackInputs"),
]
dataset = dict(_scope_="mmpretrain", type="CustomDataset", data_root=data_root)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(**dataset, data_prefix=dict(img_path="train"), pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**dataset, data_prefix=dict(img_path="val"), pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(_scope_="mmpretrain", type="Accuracy", topk=1)
test_evaluator = val_evaluator
