# An ordinary head on the spiking backbone: UPerNet on its maps, averaged over time.
# The head is mmseg's own and not spiking: it computes with real values.
_base_ = [
    "mmseg::_base_/models/upernet_r50.py",
    "mmseg::_base_/datasets/ade20k.py",
    "../_base_/schedules/adamw_160k.py",
    "mmseg::_base_/default_runtime.py",
    "../_base_/hooks.py",
]

pretrained = "checkpoints/metaspikeformer_15M.pth"  # see docs/transfer.md
norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="mmspike.MetaSpikeFormer",
        arch="15M",
        time_steps=1,
        out_indices=(1, 2, 3, 4),
        decode="mean",
        init_cfg=dict(type="Pretrained", checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 360], num_classes=150, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=256, num_classes=150, norm_cfg=norm_cfg),
)
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(
    paramwise_cfg=dict(lr_mults=dict(_delete_=True, decode_head=2.0, auxiliary_head=2.0))
)

sync_bn = "torch"
