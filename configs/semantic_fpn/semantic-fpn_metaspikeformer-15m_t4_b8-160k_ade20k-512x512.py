# Semantic FPN, Meta-SpikeFormer 15M, T = 4 in backbone, neck and head, ADE20K.
_base_ = "./semantic-fpn_metaspikeformer-15m_t1_b8-160k_ade20k-512x512.py"

model = dict(backbone=dict(time_steps=4))
