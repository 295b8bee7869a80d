# Semantic FPN as mmseg has it, with a spiking backbone (15M, T = 1), neck and head, all 128 wide.
# It reads strides 2, 4, 8 and 16: the stem and the stages 1, 2 and 4.
_base_ = "../hooks.py"

norm_cfg = dict(type="BN", requires_grad=True)
width = 128
model = dict(
    _scope_="mmseg",
    type="mmspike.seg.SpikeEncoderDecoder",
    neuron_cfg=dict(type="mmspike.LIF"),  # in backbone, neck and head
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(512, 512),
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type="mmspike.MetaSpikeFormer",
        arch="15M",
        time_steps=1,
        out_indices=(0, 1, 2, 4),
    ),
    neck=dict(
        type="mmspike.SpikeFPN",
        in_channels=[32, 64, 128, 360],
        in_strides=[2, 4, 8, 16],
        out_channels=width,
        num_outs=4,
    ),
    decode_head=dict(
        type="mmspike.seg.SpikeFPNHead",
        in_channels=[width] * 4,
        in_index=[0, 1, 2, 3],
        feature_strides=[2, 4, 8, 16],
        channels=128,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
