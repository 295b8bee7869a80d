# E-SpikeFormer 5M, T = 1, D = 4, ImageNet-1K from scratch, 200 epochs on 8 GPUs of 256 images.
_base_ = "./espikeformer-10m_t1-d4_8xb256-200e_in1k.py"

model = dict(backbone=dict(arch="5M"), head=dict(in_channels=192))
