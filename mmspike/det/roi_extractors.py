"""RoI features of all time steps from one RoIAlign call."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor

from mmspike.layers.time import channels_to_time, time_to_channels
from mmspike.registry import DET_MODELS


@DET_MODELS.register_module()
class SpikeSingleRoIExtractor(SingleRoIExtractor):
    """mmdet's RoI extractor on sequences: the steps of a map travel as channels.

    It takes and gives the batch first, as mmdet's RoI heads index it. ``out_channels`` counts the
    channels of one step.
    """

    def forward(
        self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Cut the RoIs out of the maps of their scale.

        Args:
            feats: One ``[B, T, C, H, W]`` per stride, membrane potentials.
            rois: ``[N, 5]``: index of the image, then x1, y1, x2, y2 in pixels of the image.
            roi_scale_factor: Factor by which the RoIs grow about their centres.

        Returns:
            ``[N, T, C, h, w]``, typed like the maps; computed in float32, in which coordinates of
            large images are exact and which mmcv implements everywhere.

        Raises:
            ValueError: If a map has not ``out_channels`` channels.
        """
        time_steps, channels = feats[0].shape[1:3]
        if channels != self.out_channels:
            raise ValueError(
                f"SpikeSingleRoIExtractor: out_channels={self.out_channels}, but the maps have "
                f"{channels} channels (shape {tuple(feats[0].shape)}, [B, T, C, H, W])"
            )
        maps = [time_to_channels(f, torch.float32) for f in feats]
        host = copy.copy(self)  # other threads go on with theirs
        host.out_channels = time_steps * channels  # by which it sizes its result
        x = SingleRoIExtractor.forward(host, maps, rois, roi_scale_factor)
        return channels_to_time(x, time_steps).to(feats[0].dtype)
