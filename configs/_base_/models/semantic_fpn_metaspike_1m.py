# Semantic FPN of 1.1 M parameters, to train from scratch on crops of 256 x 256 pixels.
_base_ = "./semantic_fpn_metaspike.py"

width = 32  # of neck and head
model = dict(
    data_preprocessor=dict(size=(256, 256)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[16, 32, 64, 96], num_heads=4),
        attn_init_size=(256, 256),  # see docs/architecture.md: without weights that are loaded
    ),
    neck=dict(in_channels=[8, 16, 32, 96], out_channels=width),
    decode_head=dict(in_channels=[width] * 4, channels=width),
)
