# Semantic FPN as mmseg has it, with a spiking backbone (15M, T = 1), neck and head, all 128 wide.
# It reads strides 2, 4, 8 and 16: the stem and the stages 1, 2 and 4.
_base_ = ["mmseg::_base_/models/fpn_r50.py", "../hooks.py"]

norm_cfg = dict(type="BN", requires_grad=True)
width = 128
model = dict(
    type="mmspike.seg.SpikeEncoderDecoder",
    neuron_cfg=dict(type="mmspike.LIF"),  # in backbone, neck and head
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="mmspike.MetaSpikeFormer",
        arch="15M",
        time_steps=1,
        out_indices=(0, 1, 2, 4),
    ),
    neck=dict(
        _delete_=True,
        type="mmspike.SpikeFPN",
        in_channels=[32, 64, 128, 360],
        in_strides=[2, 4, 8, 16],
        out_channels=width,
        num_outs=4,
    ),
    decode_head=dict(
        type="mmspike.seg.SpikeFPNHead",
        in_channels=[width] * 4,
        feature_strides=[2, 4, 8, 16],
        channels=128,
        norm_cfg=norm_cfg,
    ),
)
