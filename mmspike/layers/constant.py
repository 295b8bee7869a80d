"""Whether a map says anything: it does not where all of its pixels are alike."""

from __future__ import annotations

from torch import Tensor


def is_constant(x: Tensor) -> Tensor:
    """Whether ``[N, C, H, W]`` is the same at every pixel of every image, a boolean of no axes."""
    return (x == x[:1, :, :1, :1]).all()
