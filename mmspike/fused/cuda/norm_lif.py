"""A batch norm and the LIF or integer LIF behind it, of all time steps, in few passes over memory.

Training, forward: the batch's statistics, then one kernel that normalises, charges, fires and
resets (the norm's output is never kept). Backward: two kernels that compute the potentials again
from the norm's input; the first sums up over pixels, the second writes the gradient. Statistics
and sums of a channel are finished by the program that comes last, so that each is one launch; the
order of all sums is fixed, so that two runs are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.fused.cuda.launches import BIAS, NORM, NOTHING, Launches, unpacking
from mmspike.fused.cuda.tiles import layout_of
from mmspike.neurons.kernels.common import IntegerParameters, LIFParameters

SCALE, SHIFT = 4, 5
"""Rows of a norm's numbers, ``[6, C]``: values per channel, their mean, the sum of squared
distances from it, ``1 / sqrt(var + eps)``, and what is applied, ``x = SCALE * y + SHIFT``."""

Combine = Callable[[Tensor], Tensor]
"""Gathers ``[1, 3, C]`` (count, mean, sum of squares) of every process into ``[processes, 3, C]``,
or adds up the sums ``[2, C]`` over all processes."""


class Norm(NamedTuple):
    """A batch norm, as the kernels take it; all vectors are float32, ``[C]``.

    Attributes:
        weight: Scale of the normalised values.
        bias: Added to them.
        running_mean: Updated in training.
        running_var: Updated in training, by the unbiased variance.
        num_batches_tracked: Counted up in training.
        training: Whether the batch's statistics are used, else the running ones.
        momentum: Share of this batch in the running statistics.
        eps: Added to the variance.
        gather: For statistics over processes, with ``add``.
        add: As ``gather``, for the sums of the backward pass.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    training: bool = True
    momentum: float = 0.1
    eps: float = 1e-5
    gather: Combine | None = None
    add: Combine | None = None


Parameters = LIFParameters | IntegerParameters
"""A neuron's: spikes of 0 and 1, or integers."""


class Output(NamedTuple):
    """What is written of spikes: their type, and whether as bits too (integers: as bytes)."""

    dtype: torch.dtype
    bits: bool = False


def norm_and_fire(y_seq: Tensor, norm: Norm, p: Parameters, out: Output) -> tuple:
    """Normalise ``[T, B, C, H, W]`` and turn the result into spikes.

    Returns:
        Spikes shaped and laid out like ``y_seq``, and the bits, or ``None``; of integers, bytes of
        that shape.
    """
    return _NormLIF.apply(y_seq, norm.weight, norm.bias, norm, launches(y_seq, p), out)


def fire(x_seq: Tensor, p: Parameters, out: Output) -> tuple:
    """Turn membrane potentials ``[T, B, C, H, W]`` into spikes, and the bits, or ``None``."""
    return _LIF.apply(x_seq, launches(x_seq, p), out)


@torch.no_grad()
def bias_and_fire(y_seq: Tensor, bias: Tensor, p: Parameters, out: Output) -> tuple:
    """In inference: add a bias ``[C]`` to every channel and turn the result into spikes."""
    return _write(launches(y_seq, p), y_seq, out, BIAS, bias, bias)


def unpack(bits: Tensor, like: Tensor) -> Tensor:
    """Write the spikes that ``bits`` hold into ``like``, and return it."""
    unpacking(bits.numel(), like.dtype, like.device)(bits, like)
    return like


def launches(y_seq: Tensor, p: Parameters) -> Launches:
    """The kernels for a map and a neuron.

    Raises:
        ValueError: If the map is not ``[T, B, C, H, W]``, dense, with the channels last or first.
    """
    neuron: tuple = p
    if isinstance(p, LIFParameters):
        neuron = (*p[:4], type(p.surrogate), p.surrogate.alpha, p.detach_reset)
    return _launches(y_seq.shape, y_seq.stride(), y_seq.dtype, y_seq.device, neuron)


@lru_cache(maxsize=4096)
def _launches(
    shape: torch.Size, strides: tuple, dtype: torch.dtype, device: torch.device, neuron: tuple
) -> Launches:
    layout = layout_of(shape, strides)
    if layout is None:
        raise ValueError(
            "norm and neuron: the kernels take dense maps [T, B, C, H, W], got shape "
            f"{tuple(shape)} with strides {strides}"
        )
    if isinstance(neuron, IntegerParameters):
        return Launches(neuron, layout, dtype, device)
    *rest, surrogate, alpha, detach_reset = neuron
    p = LIFParameters(*rest, surrogate(alpha), detach_reset)  # type: ignore[call-arg]
    return Launches(p, layout, dtype, device)


def _write(
    known: Launches, y_seq: Tensor, out: Output, before: int, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor | None]:
    spikes = torch.empty_like(y_seq, dtype=out.dtype)
    bits = None
    if out.bits and known.counts:
        bits = torch.empty_like(y_seq, dtype=torch.uint8)
    elif out.bits:
        bits = torch.empty(y_seq.numel() // 8, dtype=torch.uint8, device=y_seq.device)
    launch = known.fire(before, out.dtype, out.bits, scale.dtype)
    launch(y_seq, spikes, spikes if bits is None else bits, scale, shift)
    return spikes, bits


class _NormLIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        y_seq: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: Norm,
        known: Launches,
        out: Output,
    ) -> tuple[Tensor, Tensor | None]:
        channels = known.layout.channels
        numbers = torch.empty(6, channels, dtype=torch.float32, device=y_seq.device)
        given, rates = norm[:5], (float(norm.momentum), float(norm.eps))
        if not norm.training:
            known.running()(numbers, *given[:4], rates[1])
        else:
            part = numbers.new_empty(known.parts, 3, channels)
            launch = known.statistics(norm.gather is not None)
            launch(y_seq, part, numbers, *given, known.counter, *rates)
            if norm.gather is not None:
                parts = norm.gather(numbers[:3].unsqueeze(0))
                known.finish(len(parts))(parts, numbers, *given, *rates)
        spikes, bits = _write(known, y_seq, out, NORM, numbers[SCALE], numbers[SHIFT])
        ctx.save_for_backward(y_seq, numbers)
        ctx.known, ctx.training, ctx.add = known, norm.training, norm.add
        if bits is not None:
            ctx.mark_non_differentiable(bits)
        ctx.set_materialize_grads(False)
        return spikes, bits

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s: Tensor | None, _: None) -> tuple:
        if grad_s is None:
            return (None,) * 6
        y_seq, numbers = ctx.saved_tensors
        known, channels, dtype = ctx.known, numbers.size(1), grad_s.dtype
        y_seq = _laid_out(y_seq, known)
        grad_s, grad_y = _like(grad_s, y_seq), torch.empty_like(y_seq)
        grads = torch.empty(4, channels, dtype=torch.float32, device=y_seq.device)
        slopes, grad_weight, grad_bias = grads[:2], grads[2], grads[3]
        part = grads.new_empty(known.grad_parts, 2, channels)
        rest = (numbers, slopes, part, grad_weight, grad_bias, known.counter)
        if ctx.training:
            merge = ctx.add is not None
            known.backward(NORM, True, False, False, merge, dtype)(y_seq, grad_s, grad_y, *rest)
            if merge:
                known.slopes()(ctx.add(slopes.clone()), numbers, slopes)
            known.backward(NORM, False, True, True, False, dtype)(y_seq, grad_s, grad_y, *rest)
        else:
            known.backward(NORM, True, True, False, True, dtype)(y_seq, grad_s, grad_y, *rest)
        return grad_y, grad_weight, grad_bias, None, None, None


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x_seq: Tensor, known: Launches, out: Output
    ) -> tuple[Tensor, Tensor | None]:
        spikes, bits = _write(known, x_seq, out, NOTHING, x_seq, x_seq)
        ctx.save_for_backward(x_seq)
        ctx.known = known
        if bits is not None:
            ctx.mark_non_differentiable(bits)
        ctx.set_materialize_grads(False)
        return spikes, bits

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s: Tensor | None, _: None) -> tuple:
        if grad_s is None:
            return None, None, None
        x_seq = _laid_out(ctx.saved_tensors[0], ctx.known)
        grad_s, grad_x = _like(grad_s, x_seq), torch.empty_like(x_seq)
        launch = ctx.known.backward(NOTHING, False, True, False, False, grad_s.dtype)
        launch(x_seq, grad_s, grad_x, *(x_seq,) * 5, ctx.known.counter)
        return grad_x, None, None


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` laid out in memory as ``x``."""
    if grad.stride() == x.stride():
        return grad
    return torch.empty_like(x, dtype=grad.dtype).copy_(grad)


def _laid_out(x: Tensor, known: Launches) -> Tensor:
    """What was kept, as it was laid out: hooks may have kept it otherwise."""
    return x if layout_of(x.shape, x.stride()) == known.layout else known.layout.lay_out(x)
