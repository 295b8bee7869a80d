"""``tools/test.py --unroll`` on models with integer neurons that predict."""

from __future__ import annotations

import json

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


@pytest.mark.slow
@pytest.mark.parametrize("kind", METRICS)
def test_binary_frames_score_the_same(kind, request, tmp_path):
    trained = request.getfixturevalue(f"trained_integer_{kind}")
    out = evaluate(trained, tmp_path, "--unroll")
    assert "4 binary frames" in out
    metric = read_metric(out)
    for name in METRICS[kind]:
        assert trained.metric[name] > 0.1
        assert metric[name] == pytest.approx(trained.metric[name], abs=ROUNDING[kind]), name


def test_report_tells_rates_per_frame(trained_integer_segmentor):
    """At most 100 %, whatever D: mean integers are more."""
    trained = trained_integer_segmentor
    work_dir = trained.checkpoint.parent
    args = (trained.config, trained.checkpoint, work_dir, "--num-images", 2)
    out = run("analysis_tools/report_run.py", *args, "--cfg-options", *trained.options)
    (line,) = (x for x in out.splitlines() if x.startswith("firing rate: "))
    assert line.endswith("layers of neurons, per binary frame (D = 4)")
    rates = json.loads((work_dir / "firing_rates.json").read_text())
    assert 0.05 < sum(rates.values()) / len(rates) < 0.6
    assert max(rates.values()) <= 1
    assert f"firing rate: {sum(rates.values()) / len(rates):.1%} on" in line


def test_spikes_of_one_level_have_nothing_to_unroll(trained_segmentor, tmp_path):
    args = (trained_segmentor.config, trained_segmentor.checkpoint, "--work-dir", tmp_path)
    out = run("test.py", *args, "--unroll", "--cfg-options", *trained_segmentor.options, ok=False)
    assert "test: " in out.splitlines()[-1]
    assert "IntegerLIF" in out.splitlines()[-1]
