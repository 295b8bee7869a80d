# Semantic FPN, E-SpikeFormer 19M, T = 1, D = 4, ADE20K.
_base_ = "./semantic-fpn_espikeformer-10m_t1-d4_1xb16-160k_ade20k-512x512.py"

model = dict(
    backbone=dict(arch="19M", init_cfg=dict(checkpoint=_base_.pretrained_espikeformer_19m)),
    neck=dict(in_channels=[32, 64, 128, 360]),
)
