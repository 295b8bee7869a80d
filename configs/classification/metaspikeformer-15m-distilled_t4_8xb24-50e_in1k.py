# Meta-SpikeFormer 15M, T = 4, from weights of T = 1 and with a teacher: 50 epochs, 5 of them to warm
# up, as the published README has it.
_base_ = "./metaspikeformer-15m-distilled_t4_8xb24-20e_in1k.py"

train_cfg = dict(max_epochs=50)
param_scheduler = [
    dict(type="mmspike.WarmupLR", by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-6,
        by_epoch=True,
        begin=5,
        end=50,
        convert_to_iter_based=True,
    ),
]
