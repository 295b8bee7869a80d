"""Neurons that write their spikes as bits, and a batch norm and the neuron after it in one pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.fused.cpu.norm import norm_gradients, normalise, statistics
from mmspike.fused.cpu.reasons import why_not_fire, why_not_input, why_not_normalise, why_not_pack
from mmspike.layers.time import fold_time, per_step, unfold_time
from mmspike.native import conv as kernels
from mmspike.native import lif
from mmspike.native.norm import Norm
from mmspike.neurons.kernels import native
from mmspike.neurons.kernels.common import LIFParameters, empty_like_steps, gradient, rows


class PackedSpikes(NamedTuple):
    """Spikes ``[T, B, C, H, W]`` as bits in channels-last order.

    Attributes:
        carrier: A tensor of the spikes' shape without memory of its own, through which autograd
            passes the spikes' gradient on.
        bits: ``[T, bytes of a step]``, eight spikes in a byte.
        count: Number of spikes.
    """

    carrier: Tensor
    bits: Tensor
    count: int  # type: ignore[assignment]  # of a tuple it is a method

    @property
    def shape(self) -> torch.Size:
        """Shape of the spikes."""
        return self.carrier.shape

    def flatten(self, start: int, end: int) -> PackedSpikes:
        """Merge leading axes, as ``Tensor.flatten``."""
        return self._replace(carrier=self.carrier.flatten(start, end))

    def unpack(self) -> Tensor:
        """The spikes as floats, in channels-last memory; outside the graph."""
        n, c, h, w = self.carrier.flatten(0, -4).shape
        spikes = self.carrier.new_empty(n, h, w, c)
        return kernels.unpack(self.bits, spikes).permute(0, 3, 1, 2).view(self.shape)

    def are_constant(self) -> Tensor | None:
        """Whether they are the same at every pixel; ``None`` if not."""
        channels = self.shape[-3]
        if channels % 8:  # pixels do not begin where bytes do
            pixels = self.unpack().movedim(-3, -1).flatten(0, -2)
        else:
            pixels = self.bits.view(-1, channels // 8)
        return torch.tensor(True) if torch.equal(pixels[:-1], pixels[1:]) else None


Spikes: TypeAlias = Tensor | PackedSpikes
"""Spikes as floats or as bits, ``[T, B, C, H, W]`` or ``[T * B, C, H, W]``."""


def per_step_of(fn: Callable[[Spikes], Tensor], spikes: Spikes) -> Tensor:
    """:func:`mmspike.layers.time.per_step`, of bits too."""
    if isinstance(spikes, Tensor):
        return per_step(fn, spikes)
    return unfold_time(fn(spikes.flatten(0, 1)), spikes.shape[0])


def fire(neuron: nn.Module, x_seq: Tensor, *readers: nn.Module) -> Spikes:
    """Turn membrane potentials into spikes: as bits, if the kernels know neuron and readers.

    Args:
        neuron: The neuron.
        x_seq: Membrane potentials, ``[T, B, C, H, W]``.
        *readers: The layers that read the spikes, through ``convolution.convolve``.

    Returns:
        Spikes of the same shape.
    """
    if not (_can_fire(neuron, x_seq) and _can_pack(x_seq, readers)):
        return neuron(x_seq)
    run = _Fire.apply if torch.is_grad_enabled() else _packed
    return PackedSpikes(*run(_channels_last(x_seq), neuron.dynamics()))


def norm_and_fire(norm: nn.Module, neuron: nn.Module, y_seq: Tensor, *readers: nn.Module) -> Spikes:
    """Normalise, and turn the result into spikes: ``fire(neuron, norm(y_seq), *readers)``.

    Args:
        norm: The norm, over ``[N, C, H, W]``.
        neuron: The neuron.
        y_seq: ``[T, B, C, H, W]``.
        *readers: The layers that read the spikes; none where something else does.

    Returns:
        Spikes of the same shape.
    """
    if not (_can_fire(neuron, y_seq) and why_not_normalise(norm, y_seq) is None):
        return fire(neuron, per_step(partial(normalise, norm), y_seq), *readers)
    y_seq = _dense(_channels_last(y_seq))
    mean, var = statistics(norm, fold_time(y_seq))
    pack = _can_pack(y_seq, readers)
    out = _NormFire.apply(
        y_seq, norm.weight, norm.bias, mean, var, norm.eps, norm.training, neuron.dynamics(), pack
    )
    return PackedSpikes(*out) if pack else out


def fire_into_bits(neuron: nn.Module, x_seq: Tensor) -> PackedSpikes | None:
    """:func:`fire` in inference for what reads the bits themselves; ``None`` where it cannot."""
    if torch.is_grad_enabled() or not _can_fire(neuron, x_seq):
        return None
    return PackedSpikes(*_packed(_channels_last(x_seq), neuron.dynamics()))


def _can_fire(neuron: nn.Module, x_seq: Tensor) -> bool:
    return why_not_input(x_seq) is None and why_not_fire(neuron, x_seq) is None


def _can_pack(x_seq: Tensor, readers: tuple[nn.Module, ...]) -> bool:
    channels, columns = x_seq.size(2), x_seq.size(-1)
    return bool(readers) and all(why_not_pack(channels, columns, r) is None for r in readers)


def _channels_last(x_seq: Tensor) -> Tensor:
    """``x_seq``, ``[T, B, C, H, W]``, with the channels of every step last in memory."""
    if x_seq[0].is_contiguous(memory_format=torch.channels_last):
        return x_seq
    x = fold_time(x_seq).contiguous(memory_format=torch.channels_last)
    return unfold_time(x, x_seq.size(0))


def _dense(x_seq: Tensor) -> Tensor:
    """``x_seq`` with its steps one after the other in memory, each as it lies."""
    if x_seq.size(0) == 1 or x_seq.stride(0) == x_seq[0].numel():
        return x_seq
    return _channels_last(x_seq.clone(memory_format=torch.contiguous_format))


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_seq: Tensor, p: LIFParameters) -> tuple[Tensor, Tensor, int]:
        ctx.save_for_backward(x_seq)
        ctx.p = p
        ctx.set_materialize_grads(False)
        carrier, bits, count = _packed(x_seq, p)
        ctx.mark_non_differentiable(bits)
        return carrier, bits, count

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s_seq: Tensor | None, *_: None) -> tuple:
        if grad_s_seq is None:
            return None, None
        (x_seq,) = ctx.saved_tensors
        return gradient(x_seq, grad_s_seq, ctx.p, native.backward), None


class _NormFire(torch.autograd.Function):
    """Batch norm and neuron; the norm's output is never kept, but computed again."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        y_seq: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
        batch: bool,
        p: LIFParameters,
        pack: bool,
    ) -> Tensor | tuple[Tensor, Tensor, int]:
        inv_std = torch.rsqrt(var + eps)
        scale = weight * inv_std
        shift = (bias.double() - mean.double() * scale.double()).float()  # rounded once, as torch
        norm = Norm(scale, shift, mean.clone())
        ctx.save_for_backward(y_seq, inv_std, *norm)
        ctx.batch, ctx.p = batch, p
        ctx.set_materialize_grads(False)
        if pack:
            carrier, bits, count = _packed(y_seq, p, norm)
            ctx.mark_non_differentiable(bits)
            return carrier, bits, count
        s_seq = empty_like_steps(y_seq)
        lif.forward(rows(y_seq), rows(s_seq), native.struct_of(p), norm)
        return s_seq

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s_seq: Tensor | None, *_: None) -> tuple:
        if grad_s_seq is None:
            return (None,) * 9
        y_seq, inv_std, *norm = ctx.saved_tensors
        y_seq = _dense(_channels_last(y_seq))  # hooks may have kept it in another layout
        norm = Norm(*norm)
        sums = torch.zeros(2, norm.scale.numel(), dtype=torch.float64)
        backward = partial(native.backward, norm=norm, sums=sums)
        grad = gradient(y_seq, grad_s_seq, ctx.p, backward)
        grads = norm_gradients(
            grad, y_seq, norm.mean, norm.scale, inv_std, sums, ctx.batch, out=grad
        )
        return *grads, *(None,) * 6


def _packed(
    x_seq: Tensor, p: LIFParameters, norm: Norm | None = None
) -> tuple[Tensor, Tensor, int]:
    x = rows(x_seq)
    bits = x.new_empty(x.size(0), (x.size(1) + 7) // 8, dtype=torch.uint8)
    count = lif.forward(x, bits, native.struct_of(p), norm)
    return x_seq.new_zeros(()).expand(x_seq.shape), bits, count
