# UPerNet as mmseg has it, on the maps of the spiking backbone (15M, T = 1), averaged over time.
# The heads are mmseg's own and not spiking: they compute with real values.
_base_ = "../hooks.py"

norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    _scope_="mmseg",
    type="EncoderDecoder",
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
        out_indices=(1, 2, 3, 4),
        decode="mean",
    ),
    decode_head=dict(
        type="UPerHead",
        in_channels=[64, 128, 256, 360],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_channels=256,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
