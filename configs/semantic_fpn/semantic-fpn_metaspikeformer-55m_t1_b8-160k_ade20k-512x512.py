# Semantic FPN, Meta-SpikeFormer 55M, T = 1, neck 256 wide, ADE20K.
_base_ = "./semantic-fpn_metaspikeformer-15m_t1_b8-160k_ade20k-512x512.py"

width = 256
model = dict(
    backbone=dict(arch="55M", init_cfg=dict(checkpoint=_base_.pretrained_55m)),
    neck=dict(in_channels=[64, 128, 256, 640], out_channels=width),
    decode_head=dict(in_channels=[width] * 4),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
