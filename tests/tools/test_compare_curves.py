"""Curves of several trainings in one picture: what the metric is called, and what is refused."""

from __future__ import annotations

import json

import cv2
import pytest

from tests.tools.helpers import run

TOOL = "analysis_tools/compare_curves.py"


@pytest.fixture
def work_dir(tmp_path):
    """A training of two epochs, validated after each."""
    log = tmp_path / "run/20260101_000000/vis_data/scalars.json"
    log.parent.mkdir(parents=True)
    records = []
    for epoch, scores in enumerate([(40.0, 70.0), (55.5, 80.0)], 1):
        records.append({"loss": 2.0 / epoch, "step": 10 * epoch})
        records.append({"accuracy/top1": scores[0], "accuracy/top2": scores[1], "step": epoch})
    log.write_text("\n".join(map(json.dumps, records)))
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("accuracy/top1", ("40.00", "55.50")),
        ("top-1", ("40.00", "55.50")),
        ("top-2", ("70.00", "80.00")),
    ],
)
def test_a_metric_has_its_name_in_the_log_and_that_in_reports(metric, values, work_dir, tmp_path):
    picture = tmp_path / "curves.png"
    out = run(TOOL, f"a={work_dir}", "--metric", metric, "--out", picture)
    lines = [f"| step | {metric}, a |", "| --- | --- |"]
    lines += [f"| {step} | {value} |" for step, value in zip((10, 20), values, strict=True)]
    assert out.splitlines()[:4] == lines
    assert cv2.imread(str(picture)).std() > 1


@pytest.mark.parametrize(
    ("folder", "metric", "message"),
    [
        ("run", "mIoU", "have no mIoU; they have accuracy/top1, accuracy/top2"),
        ("run", "loss", "have no loss; they have accuracy/top1, accuracy/top2"),
        ("nowhere", "top-1", "there is no folder"),
        (".", "top-1", "no */vis_data/scalars.json of a training in"),
    ],
)
def test_curves_are_refused_in_a_line(folder, metric, message, work_dir):
    folder, out = work_dir.parent / folder, work_dir.parent / "curves.png"
    out = run(TOOL, folder, "--metric", metric, "--out", out, ok=False)
    (line,) = out.splitlines()
    assert line.startswith("compare_curves: ")
    assert message in line
