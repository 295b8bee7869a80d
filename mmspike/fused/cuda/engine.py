"""Runs chains of spiking layers, and attentions, on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from mmspike.fused.cuda.reasons import why_not_fire, why_not_input, why_not_read
from mmspike.fused.protocols import SpikingAttention, SpikingLayer
from mmspike.fused.switch import CUDA_VARIABLE, is_cuda_enabled
from mmspike.fused.watch import is_watched
from mmspike.layers.time import per_step

if TYPE_CHECKING:
    from mmspike.fused.cuda.spikes import Spikes


class CUDAEngine:
    """The engine of the Triton kernels: float32 and halves, neurons ``LIF`` and ``IntegerLIF``.

    What of a layer the kernels do not know runs plainly inside it: neuron, weights or norm. They
    are imported when they first run, since they import Triton.

    Args:
        device: Type of the device whose inputs it takes; ``"cpu"`` is for Triton's interpreter.
    """

    name = "cuda"

    def __init__(self, device: str = "cuda") -> None:
        self.device = device

    def why_not(self, x_seq: Tensor) -> str | None:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        if not is_cuda_enabled():
            return f"the engine for GPUs is switched off ({CUDA_VARIABLE}=1 switches it on)"
        return why_not_input(x_seq)

    def why_not_fused(self, layer: SpikingLayer, x_seq: Tensor) -> str | None:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        if type(layer.neuron) is nn.Identity:
            return "there is no neuron before it"
        return why_not_fire(layer.neuron, x_seq) or why_not_read(layer.layer)

    def run(self, layers: Sequence[SpikingLayer], x_seq: Tensor) -> Tensor:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        from mmspike.fused.cuda.convolution import convolve
        from mmspike.fused.cuda.spikes import fire

        spikes = fire(layers[0].neuron, x_seq)
        for layer, after in pairwise(layers):
            spikes = _weigh_and_fire(layer.layer, layer.norm, after.neuron, spikes)
        last = layers[-1]
        return per_step(last.norm, convolve(last.layer, spikes))

    def attend(self, attention: SpikingAttention, x_seq: Tensor) -> Tensor:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        from mmspike.fused.cuda.attention import mix, why_not_mix
        from mmspike.fused.cuda.spikes import Spikes, fire

        spikes = fire(attention.neuron, x_seq)
        qkv = [_weigh_and_fire(*projection, spikes) for projection in attention.projections()]
        if len(qkv) == 1:
            qkv = [Spikes(x, None, qkv[0].levels) for x in qkv[0].values.chunk(3, dim=2)]
        num_heads, scale = attention.num_heads, attention.scale
        assert scale is not None, "the door lets none in that averages"
        binary = all(s.levels == s.unit == 1 for s in qkv)
        alike = len({s.values.shape for s in qkv}) == 1
        if not (binary and alike) or why_not_mix(qkv[0].values, num_heads, scale):
            mixture = attention.mix(*(s.values for s in qkv))
        else:
            mixture = mix(qkv, num_heads, scale)
        return self.run([attention.output()], mixture)


def _weigh_and_fire(layer: nn.Module, norm: nn.Module, neuron: nn.Module, spikes: Spikes) -> Spikes:
    """What a layer, its norm and the neuron after them make of spikes."""
    from mmspike.fused.cuda.convolution import convolve, convolve_without_bias
    from mmspike.fused.cuda.spikes import norm_and_fire

    plain = type(norm) is nn.Identity and not is_watched(norm)
    if plain and spikes.levels is not None and why_not_fire(neuron, spikes.values) is None:
        out = convolve_without_bias(layer, spikes)
        if out is not None:
            return norm_and_fire(norm, neuron, *out)
    return norm_and_fire(norm, neuron, convolve(layer, spikes))
