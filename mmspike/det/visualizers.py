"""mmdet's visualizer, with labels that stay readable where boxes overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox
from mmdet.visualization import DetLocalVisualizer

from mmspike.registry import DET_VISUALIZERS

_STEPS = 8
"""How far a label moves at most, in heights (and widths) of it."""


@DET_VISUALIZERS.register_module()
class ReadableVisualizer(DetLocalVisualizer):
    """``DetLocalVisualizer`` that moves labels which would lie on others.

    Everything else, arguments included, is mmdet's.
    """

    def get_image(self) -> np.ndarray:
        """The picture drawn so far, ``[H, W, 3]``, RGB."""
        spread_texts(self.ax_save)
        return super().get_image()


def spread_texts(axes: Axes) -> None:
    """Move the texts of an image such that none lies on another, or leaves the image.

    The first stays where it is, if that is in the image; each other one goes to the nearest place
    that is free, or, where all is full, to the place with the least in it.

    Args:
        axes: Axes with an image; its texts are moved.
    """
    canvas = axes.figure.canvas
    renderer = canvas.get_renderer()
    to_data = axes.transData.inverted()
    inside = axes.get_window_extent(renderer)
    placed: list[Bbox] = []
    for text in axes.texts:
        patch = text.get_bbox_patch()
        text.update_bbox_position_size(renderer)
        box = text.get_window_extent(renderer) if patch is None else patch.get_window_extent()
        best = min(_places(box, inside), key=lambda b: _overlap(b, placed), default=box)
        for place in _places(box, inside):
            if not _overlap(place, placed):
                best = place
                break
        placed.append(best)
        x, y = axes.transData.transform(text.get_position())
        text.set_position(to_data.transform((x + best.x0 - box.x0, y + best.y0 - box.y0)))


def _places(box: Bbox, inside: Bbox) -> Iterator[Bbox]:
    """Where a label may lie, the nearest first: moved by its own heights and widths."""
    x = min(max(box.x0, inside.x0), max(inside.x1 - box.width, inside.x0))
    y = min(max(box.y0, inside.y0), max(inside.y1 - box.height, inside.y0))
    moves = [
        (0.5 * i * box.width, j * (box.height + 1))
        for i in range(-_STEPS, _STEPS + 1)
        for j in range(-_STEPS, _STEPS + 1)
    ]
    for dx, dy in sorted(moves, key=lambda m: m[0] ** 2 + m[1] ** 2):
        moved = Bbox.from_bounds(x + dx, y + dy, box.width, box.height)
        within_x = moved.x0 >= inside.x0 - 1 and moved.x1 <= inside.x1 + 1
        within_y = moved.y0 >= inside.y0 - 1 and moved.y1 <= inside.y1 + 1
        if (dx, dy) == (0, 0) or (within_x and within_y):
            yield moved


def _overlap(box: Bbox, others: Sequence[Bbox]) -> float:
    """Area in square pixels that a box shares with others."""
    shared = (Bbox.intersection(box, other) for other in others)
    return sum(s.width * s.height for s in shared if s is not None)
