"""Reports of runs: what their figures show."""

from __future__ import annotations

import importlib
import sys

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.overlaps import overlapping_texts


@pytest.fixture
def plots(monkeypatch):
    """The module that draws, whose figures are kept under ``drawn`` instead of written."""
    monkeypatch.syspath_prepend(str(ROOT / "tools/analysis_tools"))
    module = importlib.import_module("report_plots")
    monkeypatch.setattr(module, "drawn", [], raising=False)
    monkeypatch.setattr(module, "save_figure", lambda figure, _: module.drawn.append(figure))
    yield module
    plt.close("all")
    sys.modules.pop("report_plots", None)


def records(scores, losses=("loss", "loss_cls")):
    """A log of one step of training and a validation after it."""
    return [{**dict.fromkeys(losses, 1.0), "step": 10}, {**scores, "step": 0}]


SCORES = {
    "boxes at half overlap": (
        {"coco/bbox_mAP": 0.3, "coco/bbox_mAP_50": 0.6},
        {"bbox mAP": 0.3, "bbox mAP@0.5": 0.6},
    ),
    "classes": (
        {"accuracy/top1": 70.0, "accuracy/top5": 90.0},
        {"top-1": 0.7, "top-5": 0.9},
    ),
    "classes among other numbers": (
        {"accuracy/top10": 95.0, "accuracy/top2": 80.0},
        {"top-2": 0.8, "top-10": 0.95},
    ),
}


@pytest.mark.parametrize("kind", SCORES)
def test_curves_show_the_metrics_of_every_kind_of_model(kind, plots, tmp_path):
    logged, expected = SCORES[kind]
    plots.draw_curves(records(logged), tmp_path / "c.png")
    losses, scores = plots.drawn[0].axes
    lines = {line.get_label(): line.get_ydata()[0] for line in scores.lines}
    assert lines == pytest.approx(expected)
    written = [text.get_text() for text in scores.texts]
    assert written == [f"{value:.3f}" for value in sorted(expected.values())]
    assert {line.get_label() for line in losses.lines} == {"sum", "cls"}
    assert all(line.get_marker() == "o" for line in losses.lines)  # of one step
    assert overlapping_texts(plots.drawn[0]) == []


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.01, 0.02), (0.99, 1.0, 1.0, 1.0), (0.5,) * 4])
def test_last_values_stand_beside_one_another_within_the_panel(values, plots, tmp_path):
    names = [key for key in plots.METRICS if key.startswith("coco/")]
    plots.draw_curves(records(dict(zip(names, values, strict=True)), ["loss"]), tmp_path / "c.png")
    losses, scores = plots.drawn[0].axes
    assert [text.get_text() for text in scores.texts] == [f"{v:.3f}" for v in values]
    assert losses.lines[0].get_label() == "loss"
    assert overlapping_texts(plots.drawn[0]) == []
    figure = plots.drawn[0]
    figure.canvas.draw()
    for text in scores.texts:
        box = text.get_window_extent()
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height


def test_classes_say_what_is_right_and_what_was_wanted(plots, tmp_path):
    from mmengine.structures import BaseDataElement

    file = tmp_path / "image.png"
    cv2.imwrite(str(file), np.zeros((8, 8, 3), np.uint8))
    samples = []
    for found, truth in ((0, 0), (1, 0), (2, 1)):
        sample = BaseDataElement(metainfo={"img_path": str(file)})
        scores = torch.full((3,), 0.2)
        scores[found] = 0.6
        sample.set_data({"pred_score": scores, "pred_label": torch.tensor([found])})
        sample.set_data({"gt_label": torch.tensor([truth])})
        samples.append(sample)
    names = ("tench, Tinca tinca", "shark", "hen")
    plots.draw_classes(samples, {"classes": names}, tmp_path / "c.png")
    titles = [(ax.get_title(), ax.title.get_color()) for ax in plots.drawn[0].axes]
    assert titles == [
        ("tench 60%", plots.BLUE),
        ("shark 60%\ntruth: tench", plots.ORANGE),
        ("hen 60%\ntruth: shark", plots.ORANGE),
    ]
    assert overlapping_texts(plots.drawn[0]) == []
