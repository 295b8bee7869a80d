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
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts]
    shared = []
    for (a, box_a), (b, box_b) in combinations(boxes, 2):
        both = Bbox.intersection(box_a, box_b)
        if both is not None and both.width * both.height > least:
            shared.append((a, b))
    return shared
