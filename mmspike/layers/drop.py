"""Stochastic depth for spike sequences."""

from mmcv.cnn.bricks.drop import DropPath as _DropPath
from torch import Tensor

from mmspike.layers.time import swap_time_and_batch


class DropPath(_DropPath):
    """Drop a residual branch for whole images: all steps of an image share one draw.

    Args:
        drop_prob: Chance that the branch of an image is dropped in training.
    """

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, ...]`` to ``[T, B, ...]``."""
        if not self.training or self.drop_prob == 0.0:
            return x_seq
        return swap_time_and_batch(super().forward(swap_time_and_batch(x_seq)))
