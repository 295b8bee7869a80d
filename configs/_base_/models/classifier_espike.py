# Classifier of 1,000 classes on E-SpikeFormer (10M, integers of 4 levels), as published.
_base_ = "./classifier_metaspike.py"

model = dict(
    neuron_cfg=dict(type="mmspike.IntegerLIF", levels=4),
    backbone=dict(type="mmspike.ESpikeFormer", arch="10M"),
    head=dict(in_channels=240),
)
