# RetinaNet on the boxes of generated shapes, small enough for two CPU cores.
_base_ = [
    "../_base_/models/retinanet_metaspike.py",
    "../_base_/datasets/shapes_detection.py",
    "../_base_/schedules/adamw_1k.py",
]

width = 64  # of neck and head
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[32, 64, 128, 180], num_heads=4),
        attn_init_size=(128, 128),
    ),
    neck=dict(in_channels=[64, 128, 180], out_channels=width, num_outs=3),
    bbox_head=dict(
        in_channels=width,
        feat_channels=width,
        stacked_convs=2,
        num_classes=len(_base_.classes),
        anchor_generator=dict(
            octave_base_scale=2, scales_per_octave=2, ratios=[1.0], strides=[8, 16, 32]
        ),
    ),
)
# The predictors read few, binary numbers: at the common rate they learn last and slow the rest.
predictors = ("bbox_head.retina_cls", "bbox_head.retina_reg")
optim_wrapper = dict(paramwise_cfg=dict(lr_mults=dict.fromkeys(predictors, 5.0)))
