# Semantic FPN, Meta-SpikeFormer 15M, T = 4 in backbone, neck and head, ADE20K.
_base_ = "./semantic_fpn_metaspike_ade20k.py"

model = dict(backbone=dict(time_steps=4))
