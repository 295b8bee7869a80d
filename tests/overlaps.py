"""Whether texts of a figure lie on one another."""

from __future__ import annotations

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def overlapping_texts(figure: Figure, least: float = 1.0) -> list[tuple[str, str]]:
    """Pairs of visible texts that share more than ``least`` square pixels."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    beyond = _labels_beyond_axes(figure)
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    texts = [t for t in texts if t not in beyond]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts]
    shared = []
    for (a, box_a), (b, box_b) in combinations(boxes, 2):
        both = Bbox.intersection(box_a, box_b)
        if both is not None and both.width * both.height > least:
            shared.append((a, b))
    return shared


def _labels_beyond_axes(figure: Figure) -> set[Text]:
    """Labels of ticks outside of what their axes show, which exist and are not drawn."""
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    return {
        label
        for axis in axes
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
