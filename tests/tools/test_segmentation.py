"""The command-line tools on a segmentor, end to end on a few images."""

from __future__ import annotations

import csv
import json
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


def test_benchmark_writes_a_table_and_a_plot(trained, tmp_path):
    _, checkpoint, opts = trained
    out = run(
        "analysis_tools/benchmark_seg.py",
        SHAPES,
        SHAPES,
        "--checkpoints",
        checkpoint,
        checkpoint,
        "--out",
        tmp_path,
        "--num-images",
        2,
        "--per-class",
        *opts,
    )
    assert "| config | checkpoint | data set |" in out
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert len(rows) == 2
    row = json.loads((tmp_path / "table.json").read_text())["rows"][0]
    assert row["config"] == "semantic_fpn_metaspike_shapes"
    assert (row["dataset"], row["num_images"], row["time_steps"]) == ("shapes", 2, 2)
    assert 0 <= row["mIoU"] <= 100
    assert 0 < row["firing_rate"] < 100
    assert 0 < row["energy_mj"] < row["ann_energy_mj"]
    assert row["ann_energy_mj"] == pytest.approx(4.6 * row["gmacs"])
    assert row["images_per_s"] > 0
    assert 0 <= row["IoU.background"] <= 100
    assert rows[0]["mIoU"] == rows[1]["mIoU"]  # no leak from one run to the next
    assert cv2.imread(str(tmp_path / "plot.png")) is not None
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len({line.count("|") for line in table[:4]}) == 1


def test_benchmark_needs_a_checkpoint_per_config(tmp_path):
    tool = "analysis_tools/benchmark_seg.py"
    out = run(tool, SHAPES, "--checkpoints", "a.pth", "b.pth", ok=False)
    assert "1 configs, 2 checkpoints" in out
    assert "no file a.pth" in run(tool, SHAPES, "--checkpoints", "a.pth", ok=False)
