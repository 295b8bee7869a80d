# Semantic FPN with E-SpikeFormer (10M), neck and head, all of whose neurons fire integers from 0 to 4.
_base_ = "./semantic_fpn_metaspike.py"

model = dict(
    neuron_cfg=dict(_delete_=True, type="mmspike.IntegerLIF", levels=4),
    backbone=dict(
        _delete_=True,
        type="mmspike.ESpikeFormer",
        arch="10M",
        time_steps=1,
        out_indices=(0, 1, 2, 4),
    ),
    neck=dict(in_channels=[24, 48, 96, 240]),
)
