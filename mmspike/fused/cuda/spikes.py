"""Neurons that write spikes for the layers that read them, behind a batch norm or alone."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mmspike.fused.cuda import norm_lif
from mmspike.fused.cuda.norm_lif import Norm, Output
from mmspike.fused.cuda.reasons import why_not_fire, why_not_normalise
from mmspike.fused.cuda.reductions import reductions_of
from mmspike.fused.cuda.tiles import in_channels_last, layout_of
from mmspike.fused.watch import is_watched
from mmspike.layers.constant import is_constant
from mmspike.layers.time import per_step
from mmspike.neurons import IntegerLIF, levels_of, unit_of


class Spikes:
    """What a neuron gave.

    Args:
        values: ``[T, B, C, ...]``, or ``[N, C, ...]``; they carry the gradient.
        bits: The same as bits, eight channels in a byte, in the order of memory, or integers as
            bytes, shaped as they are; kept for the backward pass in their place. ``None`` where
            nothing or something else is kept.
        levels: The largest number of spikes; ``None`` if they are no spikes.
        unit: What a spike is worth.
    """

    def __init__(
        self, values: Tensor, bits: Tensor | None, levels: int | None, unit: float = 1.0
    ) -> None:
        self.values, self.bits, self.levels, self.unit = values, bits, levels, unit
        self._constant: Tensor | None = None

    def are_constant(self) -> Tensor:
        """Whether they are the same at every pixel; looked at once, however many layers ask."""
        if self._constant is None:
            if self.bits is None or self.bits.dim() > 1:
                values = self.values
                self._constant = is_constant(values.flatten(0, 1) if values.dim() == 5 else values)
            else:
                pixels = self.bits.view(-1, self.values.size(-3) // 8)
                self._constant = (pixels == pixels[:1]).all()
        return self._constant


def compute_type(x: Tensor) -> torch.dtype:
    """The type in which a convolution computes: that of the autocast, or that of ``x``."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def fire(neuron: nn.Module, x_seq: Tensor) -> Spikes:
    """Turn membrane potentials ``[T, B, C, ...]`` into spikes for a layer of weights.

    They are typed as that layer computes.
    """
    if type(neuron) is nn.Identity and not is_watched(neuron):
        return Spikes(x_seq, None, None)
    if why_not_fire(neuron, x_seq) is not None:
        return Spikes(neuron(x_seq), None, levels_of(neuron), unit_of(neuron))
    x_seq = _channels_last(x_seq)
    values, bits = norm_lif.fire(x_seq, neuron.dynamics(), _output(x_seq, neuron))
    return Spikes(values, bits, levels_of(neuron), unit_of(neuron))


def norm_and_fire(
    norm: nn.Module, neuron: nn.Module, y_seq: Tensor, bias: Tensor | None = None
) -> Spikes:
    """Normalise, and turn the result into spikes: ``fire(neuron, norm(y_seq + bias))``.

    Args:
        norm: The norm, over ``[N, C, H, W]``; with a bias, nothing.
        neuron: The neuron.
        y_seq: ``[T, B, C, ...]``.
        bias: ``[C]``, in inference.
    """
    if bias is not None:
        y_seq = _channels_last(y_seq)
        values, bits = norm_lif.bias_and_fire(
            y_seq, bias, neuron.dynamics(), _output(y_seq, neuron)
        )
        return Spikes(values, bits, levels_of(neuron), unit_of(neuron))
    if why_not_fire(neuron, y_seq) or why_not_normalise(norm, y_seq):
        return fire(neuron, per_step(norm, y_seq))
    y_seq = _channels_last(y_seq)
    gather, add = reductions_of(norm)
    given = Norm(
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.num_batches_tracked,
        norm.training,
        norm.momentum,
        norm.eps,
        gather and partial(gather, eps=norm.eps),
        add,
    )
    values, bits = norm_lif.norm_and_fire(y_seq, given, neuron.dynamics(), _output(y_seq, neuron))
    return Spikes(values, bits, levels_of(neuron), unit_of(neuron))


def _channels_last(x_seq: Tensor) -> Tensor:
    """``x_seq`` as all maps lie; what comes from a host, RoI features say, is copied."""
    layout = layout_of(x_seq.shape, x_seq.stride())
    return x_seq if layout is not None and layout.last else in_channels_last(x_seq)


def _output(x_seq: Tensor, neuron: nn.Module) -> Output:
    layout = layout_of(x_seq.shape, x_seq.stride())
    bits = layout is not None and (layout.takes_bits or type(neuron) is IntegerLIF)
    bits = bits and torch.is_grad_enabled()
    return Output(compute_type(x_seq), bits)
