"""The recipes from end to end, with a small model and few images."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cls.recipes import DISTILLED, FOLDER, FROM_SCRATCH
from tests.tools.helpers import run

pytest.importorskip("mmpretrain", reason="needs mmpretrain: make install brings it")
pytest.importorskip("timm", reason="needs timm: make install brings it")
CLASSES = ("dark", "light", "striped")
CONFIG = """
_base_ = "{base}"
classes = {classes}
model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=[8, 8, 16, 16], num_heads=2)),
    head=dict(in_channels=16, num_classes=3, topk=(1,)),
    {more}
)
data_root = "{root}/"
loading = dict(num_workers=0, persistent_workers=False, pin_memory=False)
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(batch_size=2, dataset=dataset, **loading)
val_dataloader = dict(batch_size=2, dataset=dataset, **loading)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
param_scheduler = [
    dict(type="mmspike.WarmupLR", by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR", eta_min=1e-6, by_epoch=True, begin=1, end=2,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
env_cfg = dict(cudnn_benchmark=False)
randomness = dict(seed=0)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Class folders of seven images for training, and three for validation."""
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split, count in (("train", (3, 2, 2)), ("val", (1, 1, 1))):
        for label, number in zip(CLASSES, count, strict=True):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 90, (70, 90, 3))
                pixels += 150 if label == "light" else 0
                pixels[:, ::8] = 255 if label == "striped" else pixels[:, ::8]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{label}_{i}.JPEG")
    return root


def write(path, name, root, more=""):
    """A config that builds on a recipe."""
    text = CONFIG.format(base=FOLDER / f"{name}.py", classes=CLASSES, root=root, more=more)
    path.write_text(text)
    return path


def rates(work):
    """Learning rates as they were logged, by iteration."""
    (file,) = work.glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line["lr"] for line in lines if "lr" in line]


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """A run of the recipe from scratch, its config, and what it printed."""
    root = tmp_path_factory.mktemp("trained")
    config = write(root / "mine.py", FROM_SCRATCH, folders)
    out = run("train.py", config, "--work-dir", root / "work", "--auto-scale-lr")
    return root, config, out


def weights(file):
    return torch.load(file, weights_only=False)["state_dict"]


def test_from_scratch(trained):
    root, _, out = trained
    assert "accuracy/top1" in out
    full = 6e-4 * 2 / 256  # scaled to the batch
    logged = rates(root / "work")
    half = (full - 1e-6) * (1 + np.cos(np.pi * np.arange(3) / 3)) / 2 + 1e-6
    np.testing.assert_allclose(logged, [0, full / 3, full * 2 / 3, *half], rtol=1e-6)


def test_resumed_is_the_same_to_the_bit(trained, tmp_path):
    root, config, _ = trained
    first = root / "work/epoch_1.pth"
    out = run("train.py", config, "--work-dir", tmp_path / "work", "--resume", first)
    assert "Traceback" not in out
    expected, resumed = weights(root / "work/epoch_2.pth"), weights(tmp_path / "work/epoch_2.pth")
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())
    start = weights(first)
    assert not torch.equal(start["head.head.weight"], expected["head.head.weight"])


def test_fine_tuned_with_a_teacher(trained, folders, tmp_path):
    root, config, _ = trained
    file = root / "work/epoch_2.pth"
    more = (
        f'teacher=dict(_delete_=True, type="mmspike.cls.Teacher", model="{config}", '
        f'checkpoint="{file}"), init_cfg=dict(checkpoint="{file}"),'
    )
    mine = write(tmp_path / "mine_t4.py", DISTILLED, folders, more)
    out = run("train.py", mine, "--work-dir", tmp_path / "work")
    assert re.search(r"loss_distill: \d", out)
    before, after = weights(file), weights(tmp_path / "work/epoch_2.pth")
    assert not any("teacher" in name for name in after)
    assert set(after) - set(before) == {"head.head_kd.weight", "head.head_kd.bias"}
    moved = (after["head.head.weight"] - before["head.head.weight"]).abs().max().item()
    assert 0 < moved < 1e-3  # it went on from there, at the low rate
    assert after["head.head_kd.weight"].std().item() == pytest.approx(0.02, rel=0.4)
