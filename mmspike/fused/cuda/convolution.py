"""Convolutions that read spikes, and keep bits of them for the backward pass."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.fused.cuda import depthwise, norm_lif
from mmspike.fused.cuda.reasons import why_not_read
from mmspike.fused.cuda.spikes import Spikes, compute_type
from mmspike.fused.memory import (
    MOST_LEVELS,
    lay_out_weight,
    spikes_saved_as_bytes,
    values_of,
)
from mmspike.fused.protocols import call, is_split
from mmspike.fused.watch import is_watched
from mmspike.layers.time import fold_time, unfold_time
from mmspike.neurons import count_of

_CHANNELS_LAST = torch.channels_last


class Geometry(NamedTuple):
    """What a convolution takes beside its tensors, in torch's order."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def convolve(layer: nn.Module, spikes: Spikes) -> Tensor:
    """Run a layer on the spikes of all steps.

    Args:
        layer: A layer of weights, or several of which the first reads spikes.
        spikes: ``[T, B, C, ...]``.

    Returns:
        ``[T, B, C', ...]``.
    """
    values = spikes.values
    return unfold_time(_convolve(layer, spikes, fold_time(values)), values.size(0))


def convolve_without_bias(layer: nn.Module, spikes: Spikes) -> tuple[Tensor, Tensor] | None:
    """In inference: run a layer, and leave its last bias to the neuron behind it.

    Returns:
        ``[T, B, C', ...]`` and the bias, ``[C']``; ``None`` if there is none, or it cannot be left.
    """
    convs = _convolutions_of(layer)
    if torch.is_grad_enabled() or not convs or convs[-1].bias is None:
        return None
    x = fold_time(spikes.values)
    for conv in convs:
        x = _infer(conv, x, conv is not convs[-1])
    return unfold_time(x, spikes.values.size(0)), convs[-1].bias


def _convolutions_of(layer: nn.Module) -> list[nn.Conv2d]:
    """The convolutions that a layer is, one after the other; none if it is something else."""
    convs = list(layer) if isinstance(layer, nn.Sequential) else [layer]
    known = all(type(c) is nn.Conv2d and why_not_read(c) is None for c in convs)
    return convs if known and not is_watched(layer) else []


def _convolve(layer: nn.Module, spikes: Spikes, x: Tensor) -> Tensor:
    if spikes.levels is None or spikes.levels > MOST_LEVELS:
        return layer(x)
    if why_not_read(layer) is not None:
        with spikes_saved_as_bytes(x, spikes.levels, spikes.unit):
            return layer(x)
    if is_split(layer):
        return layer.rest(_convolve(layer.first, spikes, x), call, spikes.are_constant)
    if not torch.is_grad_enabled():
        return _infer(layer, x)
    lay_out_weight(layer)
    if _takes_depthwise(layer, x):
        return _Depthwise.apply(x, layer.weight, spikes, layer.padding[0])
    dtype = compute_type(x)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    weight = layer.weight.to(dtype)
    return _Convolve.apply(x.to(dtype), weight, bias, spikes, _geometry_of(layer))


def _infer(conv: nn.Conv2d, x: Tensor, with_bias: bool = True) -> Tensor:
    lay_out_weight(conv)
    dtype = compute_type(x)
    if _takes_depthwise(conv, x):
        return depthwise.forward(x, depthwise.rows_of(conv.weight, dtype), conv.padding[0])
    bias = conv.bias.to(dtype) if with_bias and conv.bias is not None else None
    return torch.conv2d(x.to(dtype), conv.weight.to(dtype), bias, *_geometry_of(conv))


def _geometry_of(conv: nn.Conv2d) -> Geometry:
    return Geometry(conv.stride, conv.padding, conv.dilation, conv.groups)


def _takes_depthwise(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the kernels run a convolution faster than cuDNN: depthwise 7x7, in halves."""
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (7, 7)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding == (3, 3)
        and conv.bias is None
        and x.dtype in (torch.float16, torch.bfloat16)
        and x.dtype == compute_type(x)
        and x.is_contiguous(memory_format=_CHANNELS_LAST)
    )


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        spikes: Spikes,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(_kept(x, spikes), weight)
        ctx.geometry, ctx.like = geometry, _Like.of(x, spikes.unit)
        return torch.conv2d(x, weight, bias, *geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_out: Tensor) -> tuple:
        kept, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        mask = list(ctx.needs_input_grad[:3])
        x = ctx.like.restore(kept) if mask[1] else ctx.like.empty(kept)  # for its shape alone
        if x.is_contiguous(memory_format=_CHANNELS_LAST):
            grad_out = grad_out.contiguous(memory_format=_CHANNELS_LAST)
        sizes = [weight.size(0)] if mask[2] else None
        grads = torch.ops.aten.convolution_backward(
            grad_out, x, weight, sizes, stride, padding, dilation, False, (0, 0), groups, mask
        )
        return *grads, None, None


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, spikes: Spikes, padding: int
    ) -> Tensor:
        rows = depthwise.rows_of(weight, x.dtype)
        ctx.save_for_backward(_kept(x, spikes), rows)
        ctx.padding, ctx.weight_type = padding, weight.dtype
        ctx.like = _Like.of(x, spikes.unit)
        return depthwise.forward(x, rows, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_out: Tensor) -> tuple:
        kept, rows = ctx.saved_tensors
        grad_out = grad_out.contiguous(memory_format=_CHANNELS_LAST)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = depthwise.grad_input(grad_out, rows, ctx.padding)
        if ctx.needs_input_grad[1]:
            grad_weight = _depthwise_grad_weight(
                ctx.like.restore(kept), grad_out, rows, ctx.padding
            )
            grad_weight = grad_weight.to(ctx.weight_type)
        return grad_x, grad_weight, None, None


def _depthwise_grad_weight(x: Tensor, grad_out: Tensor, rows: Tensor, padding: int) -> Tensor:
    channels, size = x.size(1), math.isqrt(rows.size(0))
    like = rows.t().view(channels, 1, size, size)
    pads = (padding, padding)
    return torch.ops.aten.convolution_backward(
        grad_out, x, like, None, (1, 1), pads, (1, 1), False, (0, 0), channels, [False, True, False]
    )[1]


def _kept(x: Tensor, spikes: Spikes) -> Tensor:
    """What is kept of spikes ``x``: their bits, or bytes."""
    if spikes.bits is None:
        return count_of(x, spikes.unit).to(torch.uint8)
    return spikes.bits if spikes.bits.dim() == 1 else fold_time(spikes.bits)


class _Like(NamedTuple):
    """How spikes lay in memory, and what one is worth."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    unit: float

    @classmethod
    def of(cls, x: Tensor, unit: float) -> _Like:
        return cls(x.shape, x.stride(), x.dtype, unit)

    def empty(self, kept: Tensor) -> Tensor:
        """A map that lies as they did, of nothing."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=kept.device)

    def restore(self, kept: Tensor) -> Tensor:
        """The spikes from their bits or bytes."""
        if kept.dim() == 1:
            return norm_lif.unpack(kept, self.empty(kept))
        return values_of(kept, self.unit, self.dtype)
