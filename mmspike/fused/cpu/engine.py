"""Runs chains of spiking layers, and attentions, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from mmspike.fused.cpu.attention import mix_packed
from mmspike.fused.cpu.convolution import convolve, convolve_and_fire
from mmspike.fused.cpu.laid_out import LaidOutConv2d
from mmspike.fused.cpu.norm import normalise
from mmspike.fused.cpu.reasons import why_not_fire, why_not_input, why_not_pack, why_not_read
from mmspike.fused.cpu.spikes import (
    PackedSpikes,
    Spikes,
    fire,
    fire_into_bits,
    norm_and_fire,
    per_step_of,
)
from mmspike.fused.memory import saving
from mmspike.fused.protocols import SpikingAttention, SpikingLayer, is_split
from mmspike.fused.watch import is_watched
from mmspike.layers.time import per_step


class CPUEngine:
    """The engine of the kernels in ``mmspike/native``: float32, neurons that are a LIF.

    What of a layer the kernels do not know runs plainly inside it: neuron, weights or norm.
    """

    name = "cpu"
    device = "cpu"

    def why_not(self, x_seq: Tensor) -> str | None:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        return why_not_input(x_seq)

    def why_not_fused(self, layer: SpikingLayer, x_seq: Tensor) -> str | None:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        if type(layer.neuron) is nn.Identity:
            return "there is no neuron before it"
        first = layer.layer.first if is_split(layer.layer) else layer.layer
        channels = getattr(first, "in_channels", 0)
        return why_not_fire(layer.neuron, x_seq) or why_not_pack(
            channels, x_seq.size(-1), layer.layer
        )

    def run(self, layers: Sequence[SpikingLayer], x_seq: Tensor) -> Tensor:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        spikes = fire(layers[0].neuron, x_seq, layers[0].layer)
        for layer, after in pairwise(layers):
            fired = _convolve_and_fire(layer, spikes, after)
            if fired is None:
                y_seq = _weigh(layer.neuron, layer.layer, spikes)
                fired = norm_and_fire(layer.norm, after.neuron, y_seq, after.layer)
            spikes = fired
        last = layers[-1]
        y_seq = _weigh(last.neuron, last.layer, spikes)
        return per_step(partial(normalise, last.norm), y_seq)

    def attend(self, attention: SpikingAttention, x_seq: Tensor) -> Tensor:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        projections = attention.projections()
        spikes = fire(attention.neuron, x_seq, *(conv for conv, _, _ in projections))
        if len(projections) == 1:
            out = _attend_at_once(attention, spikes)
        else:
            qkv = []
            with saving(spikes, attention.neuron):
                for conv, norm, neuron in projections:
                    y_seq = per_step_of(partial(convolve, conv), spikes)
                    qkv.append(norm_and_fire(norm, neuron, y_seq))
            out = attention.mix(*qkv)
        return self.run([attention.output()], out)


def _weigh(neuron: nn.Module, layer: nn.Module, spikes: Spikes) -> Tensor:
    """What stands between neuron and norm: map ``[T, B, C, ...]`` to ``[T, B, C', ...]``."""
    with saving(spikes, neuron):
        return per_step_of(partial(convolve, layer), spikes)


def _convolve_and_fire(
    layer: SpikingLayer, spikes: Spikes, after: SpikingLayer
) -> PackedSpikes | None:
    """Run a deployed convolution and the next neuron in one pass; ``None`` where it cannot be."""
    conv = layer.layer
    if (
        not isinstance(spikes, PackedSpikes)
        or not isinstance(conv, LaidOutConv2d)
        or type(layer.norm) is not nn.Identity
        or is_watched(layer.norm)
        or why_not_read(conv)
        or why_not_fire(after.neuron, spikes.carrier)
        or why_not_pack(conv.out_channels, spikes.shape[-1], after.layer)
    ):
        return None
    return convolve_and_fire(conv, spikes, after.neuron.dynamics())


def _attend_at_once(attention: SpikingAttention, spikes: Spikes) -> Tensor:
    """The mixture of q, k and v that come side by side from one deployed projection."""
    ((conv, norm, neuron),) = attention.projections()
    y_seq = per_step(norm, per_step_of(partial(convolve, conv), spikes))
    bits = fire_into_bits(neuron, y_seq)
    if bits is None:
        return attention.mix(*neuron(y_seq).chunk(3, dim=2))
    assert attention.scale is not None, "the door lets none in that averages"
    return mix_packed(bits, attention.num_heads, attention.scale)
