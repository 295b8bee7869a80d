# The published COCO recipe of E-SpikeFormer: AdamW, 1,000 iterations of warm-up, 12 epochs, a tenth of
# the rate after 8 and 11.
_base_ = "./adamw_12e.py"

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=8)  # 2 GPUs of 4 images
