"""Labels of predictions stay readable where boxes overlap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.registry import VISUALIZERS
from mmengine.structures import InstanceData

from mmspike.engine.testing import with_readable_labels
from tests.overlaps import overlapping_texts

BOXES = [[40, 40, 200, 160], [44, 44, 190, 150], [42, 46, 210, 170], [230, 4, 255, 60]]


def draw(kind, with_masks, name):
    cfg = dict(type=kind, name=name)
    visualizer = VISUALIZERS.build(
        with_readable_labels(cfg) if kind == "mmdet.DetLocalVisualizer" else cfg
    )
    visualizer.dataset_meta = dict(classes=("circle", "triangle"), palette=[(200, 0, 0)] * 2)
    found = InstanceData(
        bboxes=torch.tensor(BOXES, dtype=torch.float32),
        labels=torch.tensor([0, 1, 1, 1]),
        scores=torch.tensor([0.99, 0.9, 0.8, 0.7]),
    )
    if with_masks:
        found.masks = torch.zeros(4, 256, 256, dtype=torch.bool)
        found.masks[:, 60:90, 60:90] = True
    image = np.full((256, 256, 3), 127, dtype=np.uint8)
    visualizer._draw_instances(image, found, *visualizer.dataset_meta.values())
    return visualizer


@pytest.mark.parametrize("with_masks", [False, True])
def test_labels_do_not_lie_on_one_another(with_masks):
    visualizer = draw("mmdet.DetLocalVisualizer", with_masks, f"readable {with_masks}")
    figure = visualizer.fig_save
    texts = [t.get_text() for t in visualizer.ax_save.texts]
    assert texts == ["circle: 99.0", "triangle: 90.0", "triangle: 80.0", "triangle: 70.0"]
    assert overlapping_texts(figure) == []
    inside = visualizer.ax_save.get_window_extent()
    for text in visualizer.ax_save.texts:
        box = text.get_window_extent()
        assert box.x0 >= inside.x0 - 1
        assert box.x1 <= inside.x1 + 1
    first = visualizer.ax_save.texts[0]
    assert first.get_position() == pytest.approx((43, 43))  # one that has room stays


def test_mmdets_own_labels_do():
    from mmdet.visualization import DetLocalVisualizer

    visualizer = draw(DetLocalVisualizer, False, "mmdet's")
    assert len(overlapping_texts(visualizer.fig_save)) >= 3


def test_other_visualizers_stay():
    cfg = with_readable_labels(dict(type="mmseg.SegLocalVisualizer", name="x"))
    assert cfg == dict(type="mmseg.SegLocalVisualizer", name="x")
