"""Configs of trainings that take seconds, and hooks that end one on purpose."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from pprint import pformat

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from tests.conftest import ROOT

SIZE = 64

DETECTOR = f"""
_base_ = "{ROOT}/configs/mask_rcnn_metaspike_shapes.py"
size = ({SIZE}, {SIZE})
model = dict(
    backbone=dict(
        arch=dict(embed_dims=[16, 32, 64, 96], num_heads=2), attn_init_size=size,
        drop_path_rate=0.2,
    ),
    neck=dict(in_channels=[16, 32, 64, 96], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=50), rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=5)),
)
val_evaluator = dict(ann_file="ROOT/annotations/val.json")
test_evaluator = val_evaluator
"""
SEGMENTOR = f"""
_base_ = "{ROOT}/configs/semantic_fpn_metaspike_shapes.py"
model = dict(
    data_preprocessor=dict(size=({SIZE}, {SIZE})),
    backbone=dict(
        arch=dict(embed_dims=[16, 32, 64, 96], num_heads=2),
        attn_init_size=({SIZE}, {SIZE}),
        drop_path_rate=0.2,
    ),
    neck=dict(in_channels=[16, 32, 64, 96], out_channels=16),
    decode_head=dict(in_channels=[16] * 3, channels=16, dropout_ratio=0.1),
)
"""
COMMON = """
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root="ROOT/")
)
val_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root="ROOT/")
)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=8, val_interval=100, val_begin=100)
param_scheduler = [dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=6)]
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=3)
)
custom_imports = dict(imports=["tests.engine.tiny"])
"""
KINDS = {"detector": DETECTOR, "segmentor": SEGMENTOR}
BY_EPOCH = """
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True))
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=2, val_interval=1)
"""  # of 4 iterations


def write_config(path: Path, kind: str, data_root: Path, *changes: str, **settings) -> Path:
    """Write a config of a tiny training.

    Args:
        path: File to write.
        kind: ``detector`` or ``segmentor``.
        data_root: Shapes of 64 x 64 pixels.
        *changes: Configs on top, each text.
        **settings: Settings on top.
    """
    layers = [KINDS[kind], COMMON, *changes]
    layers.append("\n".join(f"{key} = {pformat(value)}" for key, value in settings.items()))
    base = None
    for number, text in enumerate(layers):
        file = path if number == len(layers) - 1 else path.with_name(f"{path.stem}_{number}.py")
        head = f'_base_ = "{base}"\n' if base else ""
        file.write_text(head + text.replace("ROOT/", f"{data_root}/") + "\n")
        base = file.name
    return path


@HOOKS.register_module()
class KillAt(Hook):
    """Kill this process as the machine's memory guard would.

    Args:
        iteration: In this iteration, counted from 1, before its step.
        rank: Only this rank.
    """

    def __init__(self, iteration: int, rank: int = 0) -> None:
        self.iteration = iteration
        self.rank = rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration and runner.rank == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class SayBuffers(Hook):
    """Print what a process evaluates with, to the last bit."""

    def before_val_epoch(self, runner):
        total = sum(b.double().sum() for b in runner.model.buffers() if b.is_floating_point())
        print(f"buffers: {total.item().hex()}", flush=True)
