# DINO as mmdet has it, on the maps of a spiking backbone averaged over time; generated shapes.
_base_ = [
    "../_base_/models/dino_metaspike.py",
    "../_base_/datasets/shapes_detection.py",
    "../_base_/schedules/adamw_1k.py",
]

width = 64  # of neck and transformer
attention = dict(embed_dims=width, num_heads=4)
deformable = dict(embed_dims=width, num_heads=4)
ffn = dict(embed_dims=width, feedforward_channels=4 * width)
model = dict(
    num_queries=50,
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=[32, 64, 128, 180], num_heads=4),
        attn_init_size=(128, 128),
    ),
    neck=dict(in_channels=[64, 180], out_channels=width, norm_cfg=dict(num_groups=8)),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn),
    ),
    positional_encoding=dict(num_feats=width // 2),
    bbox_head=dict(num_classes=len(_base_.classes), embed_dims=width),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    test_cfg=dict(max_per_img=20),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
