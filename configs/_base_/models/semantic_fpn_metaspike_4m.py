# Semantic FPN of 3.9 M parameters, to train from scratch. It reads strides 4, 8 and 16.
_base_ = "./semantic_fpn_metaspike.py"

width = 48  # of neck and head
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[32, 64, 128, 180], num_heads=4),
        out_indices=(1, 2, 3, 4),
    ),
    neck=dict(
        in_channels=[32, 64, 128, 180], in_strides=[4, 8, 16, 16], out_channels=width, num_outs=3
    ),
    decode_head=dict(
        in_channels=[width] * 3,
        in_index=[0, 1, 2],
        feature_strides=[4, 8, 16],
        channels=width,
    ),
)
