"""``tools/test.py --unroll`` on models with integer neurons that predict."""

from __future__ import annotations

import pytest

from tests.tools.helpers import run
from tests.trained import read_metric

METRICS = {"detector": ("coco/bbox_mAP", "coco/segm_mAP"), "segmentor": ("mIoU", "aAcc")}
ROUNDING = {"detector": 0.01, "segmentor": 0.1}
"""What the few integers that fall elsewhere, since sums round differently, may change."""


def evaluate(trained, work_dir, *args):
    return run(
        *("test.py", trained.config, trained.checkpoint, "--work-dir", work_dir, *args),
        *("--cfg-options", *trained.options),
    )


@pytest.mark.parametrize("kind", METRICS)
def test_binary_frames_score_the_same(kind, request, tmp_path):
    trained = request.getfixturevalue(f"trained_integer_{kind}")
    out = evaluate(trained, tmp_path, "--unroll")
    assert "4 binary frames" in out
    metric = read_metric(out)
    for name in METRICS[kind]:
        assert trained.metric[name] > 0.1
        assert metric[name] == pytest.approx(trained.metric[name], abs=ROUNDING[kind]), name


def test_spikes_of_one_level_have_nothing_to_unroll(trained_segmentor, tmp_path):
    args = (trained_segmentor.config, trained_segmentor.checkpoint, "--work-dir", tmp_path)
    out = run("test.py", *args, "--unroll", "--cfg-options", *trained_segmentor.options, ok=False)
    assert "test: " in out.splitlines()[-1]
    assert "IntegerLIF" in out.splitlines()[-1]
