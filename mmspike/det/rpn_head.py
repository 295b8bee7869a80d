"""The region proposal network on spike sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from torch import Tensor, nn

from mmspike.layers.conv import (
    ONE_SIGMA_RATE,
    SpikeLayer,
    build_norm,
    predict,
    run_layers_on_levels,
)
from mmspike.neurons import build_neuron
from mmspike.neurons.arguments import check_config
from mmspike.registry import DET_MODELS


@DET_MODELS.register_module()
class SpikeRPNHead(RPNHead):
    """mmdet's RPN head, spiking.

    Convolutions are ``neuron, conv, norm``, shared by the levels; the two linear predictors read
    spikes averaged over time.

    Args:
        norm_cfg: Config of the norms; ``None`` means ``dict(type="BN")``.
        neuron_cfg: Config of the neurons; ``None`` means ``dict(type="mmspike.LIF")``.
        **kwargs: Those of ``mmdet.models.RPNHead``.
    """

    takes_sequences = True

    def __init__(
        self,
        *,
        norm_cfg: dict[str, Any] | None = None,
        neuron_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_config(f"{type(self).__name__}: norm_cfg", norm_cfg, "BN")
        self.norm_cfg = norm_cfg or {"type": "BN"}
        self.neuron_cfg = neuron_cfg
        super().__init__(**kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        convs = [m.conv for m in self.rpn_conv] if self.num_convs > 1 else [self.rpn_conv]
        self.rpn_conv = nn.ModuleList(
            SpikeLayer(
                conv,
                build_norm(self.norm_cfg, self.feat_channels),
                self.neuron_cfg,
                init_rate=ONE_SIGMA_RATE,
            )
            for conv in convs
        )
        self.neuron = build_neuron(self.neuron_cfg)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Score and refine the anchors.

        Args:
            x: One ``[T, B, C, H, W]`` per level.

        Returns:
            Scores ``[B, A, H, W]`` and deltas ``[B, A * 4, H, W]``, one of each per level.
        """
        return super().forward(run_layers_on_levels(self.rpn_conv, x))

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predict on one level, ``[T, B, C, H, W]`` after the shared convolutions.

        Predictions are float32 at least, under autocast too: mmcv's NMS on a CPU takes no halves.
        """
        spikes = self.neuron(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        predictors = (self.rpn_cls, self.rpn_reg)
        scores, deltas = (predict(layer, spikes, layer).to(dtype) for layer in predictors)
        return scores, deltas
