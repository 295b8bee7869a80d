"""Transforms of images for mmseg's pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmseg.datasets.transforms import Rerange

from mmspike.registry import SEG_TRANSFORMS


@SEG_TRANSFORMS.register_module()
class Stretch(Rerange):
    """Stretch the values of an image to a range, as mmseg's ``Rerange``; constant images too.

    An image of one value, in which there is nothing to see, becomes ``min_value`` everywhere, as
    the darkest pixels of any other image do. mmseg's transform ends in an ``AssertionError``.

    Args:
        min_value: What the smallest value of an image becomes.
        max_value: What the largest value becomes.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Stretch ``results["img"]``.

        Raises:
            ValueError: If it has NaN or infinity.
        """
        img = results["img"]
        if img.min() == img.max():
            return {**results, "img": np.full(img.shape, self.min_value, dtype=np.float64)}
        if not np.isfinite(img).all():
            raise ValueError(f"image {results.get('img_path')}: not all numbers are finite")
        return super().transform(results)
