# ImageNet-1K under data/imagenet/: a folder for each class in train/ and in val/. Crops of 224 x 224.
# Augmentation of the published code (classification/main_finetune.py), which calls timm's transforms:
# crops resized bicubically, mirrored, rand-m9-mstd0.5-inc1, a quarter of them erased by pixel. Its
# defaults are no mixup, no cutmix, no jitter of colours besides.
data_root = "data/imagenet/"
bgr_mean = [103.53, 116.28, 123.675]
bgr_std = [57.375, 57.12, 58.395]
train_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmpretrain"),
    dict(type="RandomResizedCrop", scale=224, backend="pillow", interpolation="bicubic"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation="bicubic"),
    ),
    dict(
        type="RandomErasing",
        erase_prob=0.25,
        mode="rand",
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=bgr_mean,
        fill_std=bgr_std,
    ),
    dict(type="PackInputs"),
]
test_pipeline = [  # 256, then 224: published code, classification/eval.sh
    dict(type="LoadImageFromFile", _scope_="mmpretrain"),
    dict(type="ResizeEdge", scale=256, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
dataset = dict(_scope_="mmpretrain", type="ImageNet", data_root=data_root)
train_dataloader = dict(
    batch_size=128,
    num_workers=10,  # a GPU: published code
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(**dataset, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=10,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**dataset, split="val", pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(_scope_="mmpretrain", type="Accuracy", topk=(1, 5))
test_evaluator = val_evaluator
