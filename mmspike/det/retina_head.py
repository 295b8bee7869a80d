"""RetinaNet's head on spike sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RetinaHead
from torch import Tensor, nn

from mmspike.layers.conv import ONE_SIGMA_RATE, SpikeLayer, predict, run_layers_on_levels
from mmspike.neurons import build_neuron
from mmspike.neurons.arguments import check_config
from mmspike.registry import DET_MODELS


@DET_MODELS.register_module()
class SpikeRetinaHead(RetinaHead):
    """mmdet's RetinaNet head, spiking.

    Both branches are convolutions ``neuron, conv, norm`` that the levels share; the two predictors
    read spikes averaged over time.

    Args:
        norm_cfg: Config of the norms; ``None`` means ``dict(type="BN")``.
        neuron_cfg: Config of the neurons; ``None`` means ``dict(type="mmspike.LIF")``.
        **kwargs: Those of ``mmdet.models.RetinaHead``.
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
        self.neuron_cfg = neuron_cfg
        super().__init__(norm_cfg=norm_cfg or {"type": "BN"}, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        del self.relu
        for name in ("cls_convs", "reg_convs"):
            layers = [
                SpikeLayer(m.conv, m.norm, self.neuron_cfg, init_rate=ONE_SIGMA_RATE)
                for m in getattr(self, name)
            ]
            setattr(self, name, nn.ModuleList(layers))
        self.cls_neuron = build_neuron(self.neuron_cfg)
        self.reg_neuron = build_neuron(self.neuron_cfg)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Score the anchors for every class, and refine them.

        Predictions are float32 at least, under autocast too: mmcv's NMS on a CPU takes no halves.

        Args:
            x: One ``[T, B, C, H, W]`` per level, membrane potentials.

        Returns:
            Scores ``[B, A * classes, H, W]`` and deltas ``[B, A * 4, H, W]``, one of each per
            level.
        """
        dtype = torch.promote_types(x[0].dtype, torch.float32)
        branches = (
            (self.cls_convs, self.cls_neuron, self.retina_cls),
            (self.reg_convs, self.reg_neuron, self.retina_reg),
        )
        scores, deltas = (
            [
                predict(predictor, neuron(y), predictor).to(dtype)
                for y in run_layers_on_levels(convs, x)
            ]
            for convs, neuron, predictor in branches
        )
        return scores, deltas

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score and refine the anchors of one level, ``[T, B, C, H, W]``."""
        (scores,), (deltas,) = self.forward([x])
        return scores, deltas
