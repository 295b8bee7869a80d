"""mmdet's visualizer, with labels that stay readable where boxes overlap."""

from __future__ import annotations

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
    placed = np.empty((0, 4))
    for text in axes.texts:
        patch = text.get_bbox_patch()
        text.update_bbox_position_size(renderer)
        box = text.get_window_extent(renderer) if patch is None else patch.get_window_extent()
        places = _places(box, inside)
        best = places[_overlaps(places, placed).argmin()]
        placed = np.vstack([placed, best])
        x, y = axes.transData.transform(text.get_position())
        text.set_position(to_data.transform((x + best[0] - box.x0, y + best[1] - box.y0)))


def _places(box: Bbox, inside: Bbox) -> np.ndarray:
    """Where a label may lie, the nearest first: moved by its own heights and widths.

    Returns:
        Boxes ``[N, 4]`` of left, lower, right and upper edge in pixels, the first one where the
        label is.
    """
    x = min(max(box.x0, inside.x0), max(inside.x1 - box.width, inside.x0))
    y = min(max(box.y0, inside.y0), max(inside.y1 - box.height, inside.y0))
    steps = np.arange(-_STEPS, _STEPS + 1)
    dx, dy = (m.ravel() for m in np.meshgrid(0.5 * steps, steps, indexing="ij"))
    moves = np.stack([dx * box.width, dy * (box.height + 1)], axis=1)
    moves = moves[(moves**2).sum(axis=1).argsort(kind="stable")]
    low = moves + np.array([x, y])
    places = np.hstack([low, low + np.array([box.width, box.height])])
    within = (low >= inside.min - 1).all(axis=1) & (places[:, 2:] <= inside.max + 1).all(axis=1)
    within[0] = True
    return places[within]


def _overlaps(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas ``[N]`` in square pixels that boxes ``[N, 4]`` share with others ``[M, 4]``."""
    low = np.maximum(places[:, None, :2], others[:, :2])
    high = np.minimum(places[:, None, 2:], others[:, 2:])
    return (high - low).clip(0).prod(axis=2).sum(axis=1)
