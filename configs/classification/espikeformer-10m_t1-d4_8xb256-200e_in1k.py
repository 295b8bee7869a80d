# E-SpikeFormer 10M, T = 1, D = 4, ImageNet-1K from scratch, 200 epochs on 8 GPUs of 256 images.
# From Meta-SpikeFormer's recipe differ, by the published README, the batch and 5 epochs of warm-up,
# and by the code, images that are resized to 232 for tests.
_base_ = [
    "../_base_/models/classifier_espike.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/lamb_200e.py",
    "../_base_/cls_runtime.py",
]

base_lr, batch = 6e-4, 8 * 256
test_pipeline = [
    dict(type="LoadImageFromFile", _scope_="mmpretrain"),
    dict(type="ResizeEdge", scale=232, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
train_dataloader = dict(batch_size=256)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=base_lr * batch / 256))
param_scheduler = [
    dict(type="mmspike.WarmupLR", by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-6,
        by_epoch=True,
        begin=5,
        end=200,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=batch)
