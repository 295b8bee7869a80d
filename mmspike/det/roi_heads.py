"""RoI heads that take spike sequences from the neck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from torch import Tensor

from mmspike.layers.time import swap_time_and_batch
from mmspike.registry import DET_MODELS


class BatchFirst:
    """Mixin for any RoI head of mmdet's: turns the neck's ``[T, B, C, H, W]`` batch first.

    mmdet indexes images and RoIs on the first axis. Inside a RoI head, maps are therefore
    ``[B, T, C, H, W]`` and RoI features ``[N, T, C, h, w]``; the spiking extractor, box heads and
    mask heads take them so.
    """

    takes_sequences = True

    def forward(self, x: Sequence[Tensor], *args: Any, **kwargs: Any) -> tuple:
        """See mmdet; ``x`` is one ``[T, B, C, H, W]`` per level."""
        x = tuple(map(swap_time_and_batch, x))
        return super().forward(x, *args, **kwargs)  # type: ignore[misc]

    def loss(self, x: Sequence[Tensor], *args: Any, **kwargs: Any) -> dict:
        """See mmdet; ``x`` is one ``[T, B, C, H, W]`` per level."""
        x = tuple(map(swap_time_and_batch, x))
        return super().loss(x, *args, **kwargs)  # type: ignore[misc]

    def predict(self, x: Sequence[Tensor], *args: Any, **kwargs: Any) -> list:
        """See mmdet; ``x`` is one ``[T, B, C, H, W]`` per level."""
        x = tuple(map(swap_time_and_batch, x))
        return super().predict(x, *args, **kwargs)  # type: ignore[misc]


@DET_MODELS.register_module()
class SpikeStandardRoIHead(BatchFirst, StandardRoIHead):
    """mmdet's standard RoI head on spike sequences."""


@DET_MODELS.register_module()
class SpikeCascadeRoIHead(BatchFirst, CascadeRoIHead):
    """mmdet's cascade of RoI heads on spike sequences: each stage refines the boxes of the last.

    Every stage has neurons of its own, which see the RoIs through all time steps.
    """
