# Meta-SpikeFormer 15M, T = 4, from weights of T = 1: 20 epochs, as in the paper. A second head learns
# the label that CAFormer-B36 gives (published code: half of the loss is hers, half that of the data).
_base_ = [
    "../_base_/models/classifier_metaspike.py",
    "../_base_/pretrained.py",
    "../_base_/datasets/imagenet.py",
    "../_base_/schedules/lamb_20e.py",
    "../_base_/cls_runtime.py",
]

model = dict(
    backbone=dict(time_steps=4),
    head=dict(
        distillation=True,
        distill_loss=dict(type="mmspike.cls.HardDistillation", alpha=0.5),
    ),
    teacher=dict(type="mmspike.cls.Teacher", model="caformer_b36.sail_in22k_ft_in1k"),
    init_cfg=dict(
        type="Pretrained",
        checkpoint=_base_.pretrained_15m,
        strict=False,  # heads of other classes start anew, with a warning
        allow_missing=["head.head_kd"],  # the second head is new, and T another, both on purpose
        allow_changed=["time_steps"],
    ),
)
train_dataloader = dict(batch_size=24)
