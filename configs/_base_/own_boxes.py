# What a Faster R-CNN for boxes of one's own has besides paths, classes and size: a few hundred
# images, from scratch at a small width. Steps of the pipelines have names, to restate them.
_base_ = "../faster_rcnn/faster-rcnn_metaspikeformer-4m_t1_1xb4-1k_shapes-128x128.py"

model = dict(rpn_head=dict(anchor_generator=dict(scales=[4], ratios=[0.5, 1.0, 2.0])))
train_cfg = dict(max_iters=800, val_interval=200)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=400, end=800, eta_min_ratio=0.01),
]
default_hooks = dict(checkpoint=dict(interval=200, max_keep_ckpts=1))
