"""The command-line tools, end to end on a few images."""

from __future__ import annotations

import json
import pickle
import re

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmspike.engine.testing import (
    augment_at_test_time,
    dump_predictions,
    show_predictions,
)
from tests.conftest import ROOT
from tests.tools.helpers import run

SHAPES = "configs/mask_rcnn_metaspike_shapes.py"


def options(root, time_steps=1, iters=3):
    return [
        "--cfg-options",
        f"model.backbone.time_steps={time_steps}",
        f"data_root={root}",
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        "val_dataloader.num_workers=0",
        "val_dataloader.persistent_workers=False",
        "test_dataloader.num_workers=0",
        "test_dataloader.persistent_workers=False",
        f"train_cfg.max_iters={iters}",
        f"train_cfg.val_interval={iters}",
        f"default_hooks.checkpoint.interval={iters}",
        "default_hooks.logger.interval=1",
        "model.test_cfg.rcnn.score_thr=0.0",
        "model.test_cfg.rcnn.max_per_img=5",
    ]


@pytest.fixture(scope="module")
def trained(shapes_root, tmp_path_factory):
    """A run of three iterations at T = 2; ``trained_detector`` and others are at T = 1."""
    work_dir = tmp_path_factory.mktemp("work") / "run"
    opts = options(shapes_root, time_steps=2)
    out = run("train.py", SHAPES, "--work-dir", work_dir, *opts)
    assert "coco/bbox_mAP" in out
    assert "coco/segm_mAP" in out
    fused, layers = map(int, re.search(r"fused: (\d+) of (\d+) layers; ", out).groups())
    assert fused >= layers - 4  # all but the image's, two linear ones and a transposed one
    checkpoint = work_dir / "iter_3.pth"
    assert checkpoint.is_file()
    return work_dir, checkpoint, opts


def test_training_logs_finite_losses(trained):
    work_dir, _, _ = trained
    (log,) = work_dir.glob("*/vis_data/scalars.json")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [r["loss"] for r in records if "loss" in r]
    assert len(losses) == 3
    assert np.isfinite(losses).all()


def test_resume_goes_on_from_the_last_checkpoint(trained, shapes_root):
    work_dir, checkpoint, opts = trained
    more = [o.replace("max_iters=3", "max_iters=4") for o in opts]
    out = run("train.py", SHAPES, "--work-dir", work_dir, "--resume", *more)
    assert f"Load checkpoint from {checkpoint}" in out
    assert "resumed epoch: 0, iter: 3" in out
    assert "Iter(train) [4/4]" in out


def test_test_reports_dumps_and_draws(trained, tmp_path):
    _, checkpoint, opts = trained
    dump = tmp_path / "predictions.pkl"
    args = [SHAPES, checkpoint, "--work-dir", tmp_path, "--out", dump, "--show-dir", "shown"]
    out = run("test.py", *args, *opts)
    assert "coco/segm_mAP" in out
    assert "fused: " in out
    predictions = pickle.loads(dump.read_bytes())
    assert len(predictions) == 4
    assert len(predictions[0]["pred_instances"]["scores"]) == 5
    assert len(list(tmp_path.glob("*/shown/*"))) == 4


def test_test_time_augmentation_evaluates_boxes(trained, tmp_path):
    _, checkpoint, opts = trained
    out = run("test.py", SHAPES, checkpoint, "--work-dir", tmp_path, "--tta", *opts)
    assert "coco/bbox_mAP" in out
    assert "masks are not predicted or evaluated" in out


def test_image_demo_writes_a_picture(trained, shapes_root, tmp_path):
    _, checkpoint, _ = trained
    image = shapes_root / "val/000000.png"
    picture = tmp_path / "new" / "picture.png"
    args = ["--out", picture, "--score-thr", 0, "--device", "cpu"]
    out = run("image_demo.py", image, SHAPES, checkpoint, *args)
    assert f"{picture}: " in out
    drawn = cv2.imread(str(picture)).astype(int)
    assert drawn.shape == (512, 512, 3)  # of 128 x 128 pixels, labels would have no room
    plain = cv2.resize(cv2.imread(str(image)), (512, 512)).astype(int)
    assert (abs(drawn - plain).max(-1) > 50).mean() > 0.002


def test_report_draws_the_run(trained):
    work_dir, checkpoint, opts = trained
    report = ["analysis_tools/report_run.py", SHAPES, checkpoint, work_dir, "--num-images", 2]
    out = run(*report, "--device", "cpu", "--score-thr", 0, *opts)
    for name in ("predictions.png", "curves.png", "firing_rates.png"):
        assert cv2.imread(str(work_dir / name)).std() > 1
        assert str(work_dir / name) in out
    for name in ("bbox mAP", "bbox mAP@0.5", "segm mAP", "segm mAP@0.5"):
        assert re.search(rf"^{name}: \d\.\d{{3}}$", out, re.M)
    rates = json.loads((work_dir / "firing_rates.json").read_text())
    assert len(rates) == 92  # every neuron of the demo's detector
    assert all(0 <= rate <= 1 for rate in rates.values())


def test_image_demo_names_a_missing_file(tmp_path):
    out = run("image_demo.py", "nowhere.png", SHAPES, "nothing.pth", ok=False)
    assert "image: no file nowhere.png" in out


def test_make_shapes_is_quick_the_second_time_and_keeps_other_folders(tmp_path):
    root = tmp_path / "shapes"
    args = [root, "--num-train", 2, "--num-val", 1, "--size", 32]
    assert "written" in run("dataset_converters/make_shapes.py", *args)
    assert "already there" in run("dataset_converters/make_shapes.py", *args)
    args[2] = 3
    out = run("dataset_converters/make_shapes.py", *args, ok=False)
    assert "is a shapes data set with other settings" in out


def test_auto_scale_lr_needs_a_base_batch_size(shapes_root):
    out = run("train.py", SHAPES, "--auto-scale-lr", *options(shapes_root), ok=False)
    assert "has no auto_scale_lr.base_batch_size" in out


def test_work_dir_is_named_after_the_config():
    from mmspike.engine.command_line import make_parser, read_config

    args = make_parser("").parse_args([str(ROOT / SHAPES)])
    assert read_config(args).work_dir == "work_dirs/mask_rcnn_metaspike_shapes"


def test_options_refuse_what_they_cannot_do():
    cfg = Config.fromfile(ROOT / SHAPES)
    with pytest.raises(ValueError, match=r"go to a \.pkl file"):
        dump_predictions(cfg, "folder")
    del cfg.default_hooks["visualization"]
    with pytest.raises(ValueError, match="visualization is missing"):
        show_predictions(cfg, show_dir="x")
    segmentor = Config(dict(default_scope="mmseg", test_dataloader=dict(dataset=dict(pipeline=[]))))
    with pytest.raises(ValueError, match="no tta_model"):
        augment_at_test_time(segmentor)


@pytest.mark.parametrize("tool", ["train.py", "test.py"])
def test_no_config_ends_in_a_line(tool, tmp_path):
    more = ["nothing.pth"] if tool == "test.py" else []
    out = run(tool, tmp_path / "nothere.py", *more, ok=False)
    assert "nothere.py is no config" in out
    assert "Traceback" not in out
