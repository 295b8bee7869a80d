# RTMDet as mmdet has it, on the maps of a spiking backbone averaged over time; generated shapes.
_base_ = [
    "../_base_/models/rtmdet_metaspike.py",
    "../_base_/datasets/shapes_detection.py",
    "../_base_/schedules/adamw_1k.py",
]

width = 48  # of neck and head
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[32, 64, 128, 180], num_heads=4),
        attn_init_size=(128, 128),
    ),
    neck=[
        {**_base_.model.neck[0], "in_channels": [64, 180], "out_channels": width},
        {**_base_.model.neck[1], "in_channels": [width] * 3, "out_channels": width},
    ],
    bbox_head=dict(in_channels=width, feat_channels=width, num_classes=len(_base_.classes)),
    test_cfg=dict(nms_pre=300, max_per_img=100),
)
