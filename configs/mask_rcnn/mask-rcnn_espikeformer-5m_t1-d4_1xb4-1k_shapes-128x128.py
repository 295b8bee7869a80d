# The demo with E-SpikeFormer, all of whose neurons fire integers from 0 to 4.
_base_ = "./mask-rcnn_metaspikeformer-4m_t1_1xb4-1k_shapes-128x128.py"

model = dict(
    neuron_cfg=dict(_delete_=True, type="mmspike.IntegerLIF", levels=4),
    backbone=dict(
        _delete_=True,
        type="mmspike.ESpikeFormer",
        arch=dict(embed_dims=[32, 64, 128, 180], num_heads=4),
        time_steps=1,
        attn_init_size=_base_.size,
        out_indices=(1, 2, 3, 4),
    ),
)
