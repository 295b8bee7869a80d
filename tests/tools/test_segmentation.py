"""The command-line tools on a segmentor, end to end on a few images."""

from __future__ import annotations

import re

import cv2
import pytest

from tests.tools.helpers import run

SHAPES = "configs/semantic_fpn_metaspike_shapes.py"


@pytest.fixture(scope="module")
def trained(shapes_root, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("work") / "run"
    opts = ["--cfg-options", f"data_root={shapes_root}"]
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        opts += [f"{loader}.num_workers=0", f"{loader}.persistent_workers=False"]
    opts += ["train_dataloader.batch_size=2", "model.backbone.time_steps=2"]
    train = [
        "train_cfg.max_iters=2",
        "train_cfg.val_interval=2",
        "default_hooks.checkpoint.interval=2",
        "default_hooks.logger.interval=1",
    ]
    out = run("train.py", SHAPES, "--work-dir", work_dir, *opts, *train)
    assert "mIoU" in out
    return work_dir, work_dir / "iter_2.pth", opts


def test_evaluates_shows_and_writes_predictions(trained, tmp_path):
    _, checkpoint, opts = trained
    args = ["--work-dir", tmp_path, "--show-dir", tmp_path / "shown", "--out", tmp_path / "labels"]
    assert "mIoU" in run("test.py", SHAPES, checkpoint, *args, *opts)
    assert len(list((tmp_path / "labels").glob("*.png"))) == 4
    assert len(list((tmp_path / "shown").rglob("*.png"))) == 4


def test_tests_under_augmentation(trained, tmp_path):
    _, checkpoint, opts = trained
    assert "mIoU" in run("test.py", SHAPES, checkpoint, "--work-dir", tmp_path, "--tta", *opts)


def test_image_demo_draws_labels(trained, shapes_root, tmp_path):
    _, checkpoint, _ = trained
    image = next((shapes_root / "val").iterdir())
    out = run("image_demo.py", image, SHAPES, checkpoint, "--out", tmp_path / "out.png")
    assert re.search(r"out\.png: \w+ \d+\.\d%", out)
    picture = cv2.imread(str(tmp_path / "out.png"))
    assert picture.shape == (128, 128, 3)
    assert (picture != cv2.imread(str(image))).any()


def test_report_draws_the_run(trained):
    work_dir, checkpoint, opts = trained
    out = run(
        "analysis_tools/report_run.py", SHAPES, checkpoint, work_dir, "--num-images", 3, *opts
    )
    assert "mIoU: 0." in out
    for name in ("predictions.png", "curves.png", "firing_rates.png"):
        assert cv2.imread(str(work_dir / name)) is not None
