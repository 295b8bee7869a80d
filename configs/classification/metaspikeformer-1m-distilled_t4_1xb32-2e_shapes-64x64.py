# `make demo-cls`, fine-tuned: from T = 1 to T = 4, with a second head that learns the teacher's label.
_base_ = "./metaspikeformer-1m_t1_1xb32-9e_shapes-64x64.py"

epochs = 2
work_dirs = "work_dirs/demo-cls/"

model = dict(
    backbone=dict(time_steps=4),
    head=dict(distillation=True),
    teacher=dict(
        type="mmspike.cls.Teacher",
        model="{{ fileDirname }}/metaspikeformer-1m-relu_t1_1xb32-6e_shapes-64x64.py",
        checkpoint=work_dirs + "teacher/epoch_6.pth",
    ),
    init_cfg=dict(
        type="Pretrained",
        checkpoint=work_dirs + "t1/epoch_9.pth",
        allow_missing=["head.head_kd"],  # the second head is new, and T another, both on purpose
        allow_changed=["time_steps"],
    ),
)
train_cfg = dict(max_epochs=epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        begin=0,
        end=epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(checkpoint=dict(interval=epochs))
