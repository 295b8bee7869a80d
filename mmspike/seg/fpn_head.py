"""The head of Semantic FPN on spike sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import FPNHead
from torch import Tensor, nn

from mmspike.layers.conv import ONE_SIGMA_RATE, SpikeLayer, predict
from mmspike.layers.forms import Deployable
from mmspike.layers.time import per_step
from mmspike.neurons import build_neuron
from mmspike.neurons.arguments import check_config
from mmspike.registry import SEG_MODELS


@SEG_MODELS.register_module()
class SpikeFPNHead(FPNHead):
    """mmseg's Semantic FPN head, spiking through all time steps.

    Every convolution is ``neuron, conv, norm``; what is enlarged and summed are potentials (real
    values). The classifier reads spikes averaged over time.

    Args:
        feature_strides: Strides of the incoming maps, finest first; logits come at the first.
        norm_cfg: Config of the norms; ``None`` means ``dict(type="BN")``.
        neuron_cfg: Config of the neurons; ``None`` means ``dict(type="mmspike.LIF")``.
        **kwargs: Those of ``mmseg.models.FPNHead``.
    """

    takes_sequences = True

    def __init__(
        self,
        feature_strides: Sequence[int],
        *,
        norm_cfg: dict[str, Any] | None = None,
        neuron_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_config(f"{type(self).__name__}: norm_cfg", norm_cfg, "BN")
        super().__init__(feature_strides, norm_cfg=norm_cfg or {"type": "BN"}, **kwargs)
        self.scale_heads = nn.ModuleList(
            nn.Sequential(*(_spiking(layer, neuron_cfg) for layer in head))
            for head in self.scale_heads
        )
        self.neuron = build_neuron(neuron_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Score every pixel.

        Args:
            inputs: One ``[T, B, C, H, W]`` per level of the neck.

        Returns:
            Logits ``[B, num_classes, H, W]`` at the stride of the first map that is read.
        """
        total = None
        for head, x in zip(self.scale_heads, self._transform_inputs(inputs), strict=True):
            for layer in head:
                x = layer(x) if isinstance(layer, Deployable) else per_step(layer, x)
            total = x if total is None else total + self._resize(x, total.shape[-2:])
        return predict(self.cls_seg, self.neuron(total), self.conv_seg)

    def _resize(self, x_seq: Tensor, size: Sequence[int]) -> Tensor:
        if x_seq.shape[-2:] == size:
            return x_seq
        options = {"mode": "bilinear", "align_corners": self.align_corners}
        return per_step(lambda x: F.interpolate(x, size=tuple(size), **options), x_seq)


def _spiking(layer: nn.Module, neuron_cfg: dict[str, Any] | None) -> nn.Module:
    if not isinstance(layer, ConvModule):
        return layer
    return SpikeLayer(layer.conv, layer.norm, neuron_cfg, init_rate=ONE_SIGMA_RATE)
