# Mask R-CNN, Meta-SpikeFormer 15M, T = 4, COCO, 8 epochs.
_base_ = "./mask-rcnn_metaspikeformer-15m_t1_8xb2-12e_coco.py"

model = dict(backbone=dict(time_steps=4))

train_cfg = dict(max_epochs=8)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=4000),
    dict(
        type="LinearLR",
        start_factor=1.0,
        end_factor=0.01,
        by_epoch=True,
        begin=0,
        end=8,
        convert_to_iter_based=True,
    ),
]
