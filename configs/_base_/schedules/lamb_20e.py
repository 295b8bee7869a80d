# The published recipe for T = 4 from weights of T = 1, at a rate of 2e-5 per 256 images. By its source:
#   paper       20 epochs, 2 of them to warm up (the README has 50 and 5)
#   README      8 GPUs of 24 images, base rate 2e-5
# The rest is that of the training from scratch.
_base_ = "./lamb_200e.py"

train_cfg = dict(max_epochs=20)
base_lr, batch = 2e-5, 8 * 24
optim_wrapper = dict(optimizer=dict(lr=base_lr * batch / 256))
param_scheduler = [
    dict(type="mmspike.WarmupLR", by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-6,
        by_epoch=True,
        begin=2,
        end=20,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=batch)
