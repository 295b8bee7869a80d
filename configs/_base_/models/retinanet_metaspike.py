# RetinaNet as mmdet has it, with a spiking backbone (15M, T = 1), neck and head.
# It reads strides 8 to 128: those of the stages 2, 3 and 4, and three levels that the neck makes.
_base_ = ["mmdet::_base_/models/retinanet_r50_fpn.py", "../hooks.py"]

model = dict(
    type="mmspike.det.SpikeRetinaNet",
    neuron_cfg=dict(type="mmspike.LIF"),  # in backbone, neck and head
    backbone=dict(
        _delete_=True,
        type="mmspike.MetaSpikeFormer",
        arch="15M",
        time_steps=1,
        out_indices=(2, 3, 4),
    ),
    neck=dict(
        _delete_=True,
        type="mmspike.SpikeFPN",
        in_channels=[128, 256, 360],
        in_strides=[8, 16, 16],
        out_channels=256,
        num_outs=5,
        add_extra_convs="on_input",
    ),
    bbox_head=dict(type="mmspike.det.SpikeRetinaHead"),
    # mmdet's, which waits for the GPU at every object, with the same results at once
    train_cfg=dict(assigner=dict(type="mmspike.det.WholeMaxIoUAssigner")),
)
