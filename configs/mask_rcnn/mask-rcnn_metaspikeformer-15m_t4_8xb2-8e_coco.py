# Mask R-CNN, Meta-SpikeFormer 15M, T = 4, COCO, 8 epochs.
_base_ = "./mask-rcnn_metaspikeformer-15m_t1_8xb2-12e_coco.py"

model = dict(backbone=dict(time_steps=4))

train_cfg = dict(max_epochs=8)
param_scheduler = [
    _base_.param_scheduler[0],
    {**_base_.param_scheduler[1], "end": 8},
]
