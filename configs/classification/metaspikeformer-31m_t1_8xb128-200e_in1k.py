# Meta-SpikeFormer 31M, T = 1, ImageNet-1K from scratch, 200 epochs on 8 GPUs of 128 images.
_base_ = "./metaspikeformer-15m_t1_8xb128-200e_in1k.py"

model = dict(backbone=dict(arch="31M"), head=dict(in_channels=480))
