# Meta-SpikeFormer 15M, T = 1, ImageNet-1K from scratch, 200 epochs on 8 GPUs of 128 images.
_base_ = [
    "../_base_/models/classifier_metaspike.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/lamb_200e.py",
    "../_base_/cls_runtime.py",
]
