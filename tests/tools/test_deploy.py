"""``tools/test.py --deploy`` on models that predict."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from tests.conftest import ROOT
from tests.tools.helpers import run
from tests.trained import read_metric

NAMES = ("coco/bbox_mAP", "coco/segm_mAP", "mIoU", "aAcc")
ROUNDING = {"coco/bbox_mAP": 0.005, "coco/segm_mAP": 0.005, "mIoU": 0.1, "aAcc": 0.1}
"""What the few spikes that fall elsewhere, since sums round differently, may change."""


def evaluate(trained, work_dir, *args, options=()):
    out = run(
        *("test.py", trained.config, trained.checkpoint, "--work-dir", work_dir, *args),
        *("--cfg-options", *trained.options, *options),
    )
    assert ("norms folded" in out) == ("--deploy" in args)
    assert "norms left" not in out
    return read_metric(out)


def assert_same(metric, expected):
    names = [name for name in NAMES if name in expected]
    assert names
    for name in names:
        assert metric[name] == pytest.approx(expected[name], abs=ROUNDING[name]), name


@pytest.mark.parametrize("kind", ["detector", "segmentor"])
def test_deployed_model_scores_the_same(kind, request, tmp_path):
    trained = request.getfixturevalue(f"trained_{kind}")
    out = tmp_path / ("predictions.pkl" if kind == "detector" else "labels")
    metric = evaluate(trained, tmp_path, "--deploy", "--out", out, "--show-dir", tmp_path / "shown")
    assert_same(metric, trained.metric)
    images = len(list((trained.root / "val").iterdir()))
    assert len(list(tmp_path.rglob("shown/**/*.png"))) == images
    if kind == "detector":
        predictions = pickle.loads(out.read_bytes())
        assert len(predictions) == images
        assert sum(len(p["pred_instances"]["scores"]) for p in predictions) > 0
    else:
        assert len(list(out.glob("*.png"))) == images


@pytest.mark.parametrize("kind", ["detector", "segmentor"])
def test_deployed_model_scores_the_same_under_augmentation(kind, request, tmp_path):
    trained = request.getfixturevalue(f"trained_{kind}")
    metric = evaluate(trained, tmp_path, "--tta")
    assert metric["coco/bbox_mAP" if kind == "detector" else "mIoU"] > 0.15
    # what would load or write weights when the run begins, after they were folded
    config = tmp_path / "config.py"
    config.write_text(
        f'_base_ = "{ROOT / trained.config}"\n'
        'custom_hooks = [dict(type="EMAHook")]\n'
        'resume, load_from = True, "elsewhere.pth"\n'
    )
    trained = replace(trained, config=config)
    assert_same(evaluate(trained, tmp_path, "--tta", "--deploy"), metric)
