# Meta-SpikeFormer 55M, T = 4, from weights of T = 1 and with a teacher: 50 epochs, as in the README.
_base_ = "./metaspikeformer-15m-distilled_t4_8xb24-50e_in1k.py"

model = dict(
    backbone=dict(arch="55M"),
    head=dict(in_channels=640),
    init_cfg=dict(checkpoint=_base_.pretrained_55m),
)
