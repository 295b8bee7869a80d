"""Trainings that meet numbers that are not finite, or images without contents, by the tools."""

from __future__ import annotations

import re

import pytest
import torch

from tests.conftest import ROOT
from tests.tools.helpers import run

DETECTOR = "mask_rcnn_metaspike_shapes.py"
SEGMENTOR = "semantic_fpn_metaspike_shapes.py"
NUCLEI = "semantic_fpn_metaspike_nuclei.py"
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
STEM_MEAN = "backbone.stages.0.downsample.norm.running_mean"
STEM_VAR = "backbone.stages.0.downsample.norm.running_var"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four images of 64 x 64 pixels to train on."""
    from mmspike.datasets.shapes import ShapesSettings, write_shapes

    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, ShapesSettings(num_train=4, num_val=2, seed=7, size=64))
    return root


def write_config(folder, root, base, body="", max_iters=4):
    """A config of a few iterations, a checkpoint after each, on ``base``."""
    lines = [
        f"_base_ = {str(ROOT / 'configs' / base)!r}",
        "custom_imports = dict(imports=['tests.tools.spoil'])",
        "default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1))",
        "default_hooks['logger'] = dict(interval=1)",
        f"train_cfg = dict(max_iters={max_iters}, val_interval=1000)",
    ]
    for loader in LOADERS:
        more = "batch_size=2, sampler=dict(shuffle=False)," if loader[0:2] == "tr" else ""
        lines.append(
            f"{loader} = dict(num_workers=0, persistent_workers=False, {more} "
            f"dataset=dict(data_root={str(root)!r} + '/'))"
        )
    if base == DETECTOR:
        lines.append(f"val_evaluator = dict(ann_file={str(root / 'annotations/val.json')!r})")
        lines.append("test_evaluator = val_evaluator")
    path = folder / "config.py"
    path.write_text("\n".join(lines) + "\n" + body)
    return path


def spoil(transform, at=1):
    """Put a transform into the training's pipeline."""
    return (
        "train_pipeline = [*_base_.train_pipeline]\n"
        f"train_pipeline.insert({at}, {transform})\n"
        "train_dataloader['dataset']['pipeline'] = train_pipeline\n"
    )


def checkpoints(work_dir):
    return sorted(p.name for p in work_dir.glob("*.pth"))


@pytest.mark.parametrize(
    ("base", "value", "said"),
    [(SEGMENTOR, "float('nan')", "(1 NaN of 12288 "), (DETECTOR, "float('inf')", " infinite of ")],
)
def test_a_pixel_that_is_not_finite(root, tmp_path, base, value, said):
    body = spoil(f"dict(type='SpoilPixel', file='000002.png', value={value})")
    config = write_config(tmp_path, root, base, body)
    out = run("train.py", config, "--work-dir", tmp_path, ok=False)
    assert f"iteration 2: not all inputs are finite: inputs of {root}/train/000002.png" in out
    assert said in out
    assert checkpoints(tmp_path) == ["iter_1.pth"]


def test_a_pixel_that_overflows_the_running_statistics(root, tmp_path):
    body = spoil("dict(type='SpoilPixel', file='000003.png', value=1e30)")
    config = write_config(tmp_path, root, SEGMENTOR, body)
    out = run("train.py", config, "--work-dir", tmp_path, ok=False)
    assert "iteration 2: not all numbers are finite after these images: " in out
    assert f"{root}/train/000003.png" in out
    assert f"{STEM_VAR} (" in out
    assert checkpoints(tmp_path) == ["iter_1.pth"]


def test_a_box_that_is_not_finite(root, tmp_path):
    body = spoil("dict(type='SpoilBox', file='000003.png')", at=2)
    config = write_config(tmp_path, root, DETECTOR, body)
    out = run("train.py", config, "--work-dir", tmp_path, ok=False)
    assert f"gt_instances.bboxes of {root}/train/000003.png (1 NaN of " in out
    assert checkpoints(tmp_path) == ["iter_1.pth"]


def test_a_weight_that_is_not_finite(root, tmp_path):
    """In a config without the hook, which the tool adds; and what is saved is not evaluated."""
    name = "backbone.stages.2.blocks.0.mixer.0.layer.weight"
    hook = f"type='SpoilTensor', iteration=3, name={name!r}, value=float('nan')"
    body = f"custom_hooks = [dict({hook})]\n"
    config = write_config(tmp_path, root, SEGMENTOR, body)
    run_dir = tmp_path / "run"  # mmengine writes a copy of the config there, of the same name
    out = run("train.py", config, "--work-dir", run_dir, ok=False)
    assert "iteration 3: not all numbers are finite after these images: " in out
    assert re.search(rf"weights and buffers \(1 of \d+\): {re.escape(name)} \(NaN\)", out)
    assert "loss: nan" not in out  # the loss does not tell
    assert checkpoints(run_dir) == ["iter_1.pth", "iter_2.pth"]

    good, bad = run_dir / "iter_2.pth", tmp_path / "bad.pth"
    assert "mIoU" in run("test.py", config, good, "--work-dir", tmp_path / "test")
    checkpoint = torch.load(good, weights_only=False)
    checkpoint["state_dict"][STEM_MEAN][1] = float("nan")
    torch.save(checkpoint, bad)
    out = run("test.py", config, bad, "--work-dir", tmp_path / "test", ok=False)
    assert f"checkpoint {bad}: not all numbers are finite in {STEM_MEAN}" in out
    options = ["--cfg-options", f"load_from={bad}"]
    out = run("train.py", config, "--work-dir", tmp_path / "again", *options, ok=False)
    assert f"before the first iteration, not all weights are finite: {STEM_MEAN} (NaN)" in out
    assert f"they were loaded from {bad}" in out
    assert not checkpoints(tmp_path / "again")


def test_a_blank_image_among_nuclei(root, tmp_path):
    (root / "nuclei").mkdir(exist_ok=True)
    body = (
        spoil("dict(type='Blank', file='000001.png')")
        + "train_dataloader['dataset']['img_suffix'] = '.png'\n"
        + "model = dict(decode_head=dict(num_classes=4))\n"
        + "metainfo = dict(classes=tuple('abcd'), palette=[[0, 0, 0]] * 4)\n"
        + "train_dataloader['dataset']['metainfo'] = metainfo\n"
    )
    config = write_config(tmp_path, root, NUCLEI, body, max_iters=2)
    options = ["--cfg-options", "val_dataloader=None", "val_cfg=None", "val_evaluator=None"]
    options += ["model.data_preprocessor.size=(256,256)"]
    run("train.py", config, "--work-dir", tmp_path, *options)
    assert checkpoints(tmp_path) == ["iter_1.pth", "iter_2.pth"]


@pytest.mark.parametrize("base", [SEGMENTOR, DETECTOR])
def test_one_image_of_one_pixel_at_the_largest_stride(root, tmp_path, base):
    body = spoil("dict(type='Resize', scale=(16, 16), keep_ratio=False)", at=-2)
    body += "train_dataloader['batch_size'] = 1\nmodel = dict(data_preprocessor=dict())\n"
    config = write_config(tmp_path, root, base, body)
    options = ["--cfg-options", "model.data_preprocessor.pad_size_divisor=1"]
    if base == SEGMENTOR:
        options = ["--cfg-options", "model.data_preprocessor.size=(16,16)"]
    out = run("train.py", config, "--work-dir", tmp_path, *options, ok=False)
    last = out.strip().splitlines()[-1]
    assert "more than 1 value per channel" in last
    assert "crops of more than 16 x 16 pixels" in last
    assert "batch_size of at least 2" in last
