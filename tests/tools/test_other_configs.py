"""The tools on configs and checkpoints that are not quite ours, and in a folder with a space."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmspike.engine.inputs import build_model, estimate_norms, file_batch
from tests.conftest import ROOT
from tests.det import helpers as det
from tests.seg import helpers as seg
from tests.tools.helpers import run

DETECTOR = "configs/mask_rcnn_metaspike_shapes.py"
SEGMENTOR = "configs/semantic_fpn_metaspike_shapes.py"
PURE_BASE = """
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.models import FPN, DetDataPreprocessor, FocalLoss, L1Loss, RetinaHead, RetinaNet
from mmdet.models.task_modules import (
    AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, PseudoSampler,
)
from mmdet.visualization import DetLocalVisualizer

from mmspike.backbones import MetaSpikeFormer

default_scope = None
model = dict(
    type=RetinaNet,
    data_preprocessor=dict(
        type=DetDataPreprocessor, mean=[120, 120, 120], std=[60, 60, 60], pad_size_divisor=32
    ),
    backbone=dict(
        type=MetaSpikeFormer,
        arch=dict(embed_dims=[16, 16, 24, 32], num_heads=4),
        out_indices=(1, 2, 4),
        decode="mean",
    ),
    neck=dict(type=FPN, in_channels=[16, 16, 32], out_channels=16, num_outs=5),
    bbox_head=dict(
        type=RetinaHead,
        num_classes=3,
        in_channels=16,
        feat_channels=16,
        anchor_generator=dict(
            type=AnchorGenerator, scales=[4], ratios=[1.0], strides=[4, 8, 16, 32, 64]
        ),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True),
        loss_bbox=dict(type=L1Loss),
    ),
    train_cfg=dict(
        assigner=dict(type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4),
        sampler=dict(type=PseudoSampler),
    ),
    test_cfg=dict(
        nms_pre=100, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=9
    ),
)
visualizer = dict(type=DetLocalVisualizer)
pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(128, 128), keep_ratio=True),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(
        type=PackDetInputs,
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
"""
PURE = """
from mmengine.config import read_base

with read_base():
    from .pure_base import *

val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type=CocoDataset,
        data_root={root!r},
        ann_file="annotations/val.json",
        data_prefix=dict(img="val/"),
        metainfo=dict(classes=("circle", "square", "triangle")),
        pipeline=pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
"""


def save_without_meta(cfg, image, file):
    """A state dict as it comes from elsewhere, of random weights whose predictions vary."""
    torch.manual_seed(0)
    model = build_model(cfg, None, "cpu")
    estimate_norms(model, [file_batch(cfg, image)])
    torch.save(model.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def image(shapes_root):
    return shapes_root / "val/000000.png"


@pytest.fixture(scope="module")
def detector(image, tmp_path_factory):
    file = tmp_path_factory.mktemp("bare") / "detector.pth"
    return save_without_meta(det.small_config(), image, file)


@pytest.fixture(scope="module")
def pure(shapes_root, image, tmp_path_factory):
    """A config in mmengine's pure-Python style, without default scope, and its weights."""
    folder = tmp_path_factory.mktemp("pure")
    (folder / "pure_base.py").write_text(PURE_BASE)
    config = folder / "pure.py"
    config.write_text(PURE.format(root=f"{shapes_root}/"))
    return config, save_without_meta(Config.fromfile(config), image, folder / "model.pth")


def test_image_demo_takes_the_config_s_classes_where_a_checkpoint_has_none(
    detector, image, tmp_path
):
    args = [image, DETECTOR, detector, "--out", tmp_path / "out.png", "--score-thr", 0]
    out = run("image_demo.py", *args)
    counts = dict(reversed(pair.split()) for pair in out.strip().split(": ")[-1].split(", "))
    assert set(counts) <= {"circle", "square", "triangle"}
    assert sum(map(int, counts.values())) == int(re.search(r"(\d+) instances", out)[1]) > 5


def test_image_demo_gives_numbers_where_the_classes_are_others(image, tmp_path):
    classes = 5
    options = [f"model.roi_head.{h}_head.num_classes={classes}" for h in ("bbox", "mask")]
    settings = dict(option.split("=") for option in options)
    cfg = det.small_config(**{k: int(v) for k, v in settings.items()})
    file = save_without_meta(cfg, image, tmp_path / "model.pth")
    args = [image, DETECTOR, file, "--out", tmp_path / "out.png", "--score-thr", 0]
    out = run("image_demo.py", *args, "--cfg-options", *options)
    assert re.search(r"\d+ class [0-4]", out)
    assert "circle" not in out


def test_image_demo_segments_without_meta(image, tmp_path):
    file = save_without_meta(seg.small_config(), image, tmp_path / "model.pth")
    out = run("image_demo.py", image, SEGMENTOR, file, "--out", tmp_path / "out.png")
    assert re.search(r"(background|circle|square|triangle) \d+\.\d%", out)
    assert cv2.imread(str(tmp_path / "out.png")).shape == (128, 128, 3)


def test_image_demo_reads_pure_python_configs(pure, image, tmp_path):
    config, file = pure
    args = [image, config, file, "--out", tmp_path / "out.png", "--score-thr", 0]
    assert re.search(r"9 instances .*: .*\d (circle|square|triangle)", run("image_demo.py", *args))
    drawn = cv2.imread(str(tmp_path / "out.png")).astype(int)
    plain = cv2.resize(cv2.imread(str(image)), (512, 512)).astype(int)
    assert (abs(drawn - plain).max(-1) > 50).mean() > 0.002


def test_spikes_and_energy_of_a_config_without_default_scope(pure, image, tmp_path):
    config, file = pure
    tool = "analysis_tools/spike_map.py"
    assert "Stage 4: " in run(tool, image, config, file, "--out", tmp_path / "spikes.png")
    tool = "analysis_tools/get_energy.py"
    out = run(tool, config, file, "--num-images", 1, "--out", tmp_path, "--brief")
    assert "backbone" in out
    assert json.loads((tmp_path / "energy.json").read_text())["total"]["energy_mj"] > 0


@pytest.fixture(scope="module")
def binary(shapes_root, tmp_path_factory):
    """A segmentor with one output channel: trained for three steps, resumed for two more."""
    folder = tmp_path_factory.mktemp("binary")
    for split in ("train", "val"):
        (folder / "maps" / split).mkdir(parents=True)
        for file in (shapes_root / "semseg" / split).iterdir():
            labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(folder / "maps" / split / file.name), (labels > 0).astype(np.uint8))
    options = [
        "--cfg-options",
        "model.decode_head.num_classes=2",
        "model.decode_head.out_channels=1",
        "model.decode_head.threshold=0.5",
        "model.decode_head.loss_decode.use_sigmoid=True",
        "train_dataloader.batch_size=2",
        "train_cfg.val_interval=1",
        "default_hooks.checkpoint.interval=1",
        "default_hooks.logger.interval=1",
    ]
    for part in ("train", "val", "test"):
        loader = f"{part}_dataloader"
        split = "train" if part == "train" else "val"
        options += [
            f"{loader}.dataset.data_root={shapes_root}/",
            f"{loader}.dataset.data_prefix.seg_map_path={folder}/maps/{split}",
            f"{loader}.dataset.metainfo.classes=[ground,shape]",
            f"{loader}.dataset.metainfo.palette=[[0,0,0],[255,255,255]]",
            f"{loader}.num_workers=0",
            f"{loader}.persistent_workers=False",
        ]
    work_dir = folder / "work"
    args = ["--work-dir", work_dir, *options]
    run("train.py", SEGMENTOR, *args, "train_cfg.max_iters=3")
    run("train.py", SEGMENTOR, "--resume", *args, "train_cfg.max_iters=5")
    return work_dir, work_dir / "iter_5.pth", options


def test_image_demo_draws_binary_segmentation(binary, image, tmp_path):
    _, file, options = binary
    out = run("image_demo.py", image, SEGMENTOR, file, "--out", tmp_path / "out.png", *options)
    assert re.search(r"(ground|shape) \d+\.\d%", out)


def test_report_of_a_resumed_training_shows_all_of_it(binary):
    work_dir, file, options = binary
    logs = sorted(work_dir.glob("*/vis_data/scalars.json"))
    first, last = ([json.loads(line) for line in log.read_text().splitlines()] for log in logs)
    losses = [r["loss"] for r in (*first, *last) if "loss" in r]
    assert len(losses) == 5
    out = run("analysis_tools/report_run.py", SEGMENTOR, file, work_dir, *options)
    assert f"loss: {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end" in out
    assert cv2.imread(str(work_dir / "predictions.png")).std() > 1


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([[10, 20, 30]], [10, 20, 30]),
        ([[10, 20, 30], [40, 50]], [10, 20, 30, 40, 50]),
        ([[10, 20, 30], [30, 40]], [10, 20, 30, 40]),  # from the checkpoint of 20
        ([[10, 20, 30], [10, 20]], [10, 20]),  # anew
        ([[10, 20, 30], [50, 100]], [50, 100]),  # anew, logged more rarely
        ([[1, 2, 3], [], [4]], [1, 2, 3, 4]),  # a test in between
    ],
)
def test_runs_are_put_together_by_their_steps(runs, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools/analysis_tools"), *sys.path])
    for i, steps in enumerate(runs):
        log = tmp_path / f"run{i}/vis_data/scalars.json"
        log.parent.mkdir(parents=True)
        records = [{"loss": i, "step": step} for step in steps] + [{"mIoU": 50.0, "step": 1}]
        log.write_text("\n".join(json.dumps(r) for r in records))
    tool = runpy.run_path(str(ROOT / "tools/analysis_tools/report_run.py"))
    records = [r for r in tool["read_scalars"](tmp_path) if "loss" in r]
    assert [r["step"] for r in records] == expected
    assert records[-1]["loss"] == max(i for i, steps in enumerate(runs) if steps)


@pytest.mark.parametrize("target", ["demo", "demo-seg"])
def test_the_demo_runs_in_a_folder_with_a_space(target, tmp_path):
    folder = tmp_path / "a folder"
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@" >> calls\necho >> calls\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", folder)
    sources = ["setup.py", "mmspike/native/native.cpp", "requirements/stack.txt"]
    stamps = [".venv/.installed", ".venv/.installed-operators"]
    sources += ["requirements/classification.txt", "requirements/constraints.txt"]
    for name in [*sources, *stamps]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    checkpoint = folder / f"work_dirs/{target}/iter_9.pth"
    checkpoint.parent.mkdir(parents=True)
    (checkpoint.parent / "last_checkpoint").write_text(str(checkpoint))
    for stamp in stamps:
        os.utime(folder / stamp, (2e9, 2e9))
    subprocess.run(["make", target], cwd=folder, check=True, capture_output=True, timeout=60)
    *_, report = (folder / "calls").read_text().splitlines()
    assert f"_shapes.py|{checkpoint}|work_dirs/{target}|" in report
