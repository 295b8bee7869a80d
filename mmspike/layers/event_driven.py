"""Convolutions on the CPU whose work grows with the number of spikes.

Neurons write spikes as bits (``firing.py``), and the layers that read them add up rows of weights
where there are any (``mmspike/native``). The results are those of the plain layers but for the
order of the sums, in gradients but for their rounding; bits are all that is kept of the spikes for
the backward pass.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils._python_dispatch import _get_current_dispatch_mode

from mmspike.native import conv as kernels
from mmspike.native.library import ConvStruct
from mmspike.neurons.kernels import native
from mmspike.neurons.kernels.common import LIFParameters

DENSE_RATE = 0.5
"""Firing rate above which a dense convolution over all inputs is faster."""

QUAD_INPUTS = 320
"""Inputs of a pixel (channels times kernel) up to which sums over four channels may be faster than
those spike by spike, at any rate: the cache holds their table."""

QUAD_RATE = 0.24
"""Firing rate above which they are where their table was made beforehand."""

QUAD_SPIKES = 256
"""Spikes of a channel beyond a quarter of its pixels that pay for making the table anew; more where
a stride leaves pixels out."""

FILTERED_PIXELS = 1024
"""Pixels of all images from which on minimal filtering of the inputs' gradient pays for the values
of the filters, which are four times as many as the weights."""


class PackedSpikes(NamedTuple):
    """Spikes ``[T, B, C, H, W]`` as bits in channels-last order; :func:`convolve` reads them.

    Attributes:
        carrier: A tensor of the spikes' shape without memory of its own, through which autograd
            passes the spikes' gradient on.
        bits: Bytes of eight spikes each.
        count: Number of spikes.
    """

    carrier: Tensor
    bits: Tensor
    count: int

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


def convolve(conv: nn.Module, spikes: Tensor | PackedSpikes) -> Tensor:
    """Run a convolution on spikes.

    Args:
        conv: The convolution, or a module whose first layer (``reader``) is one.
        spikes: ``[N, C, H, W]``, bits or not.

    Returns:
        ``[N, C', H', W']``.
    """
    if not isinstance(spikes, PackedSpikes) or hasattr(conv, "reader"):
        return conv(spikes)
    weight = getattr(conv.weight, "plain", conv.weight)  # of a deployed layer
    geometry = _geometry_of(conv, spikes)
    infers = not torch.is_grad_enabled()
    if conv.groups > 1 and infers:
        return kernels.depthwise(spikes.bits, weight, geometry)
    if conv.groups > 1:
        return _Depthwise.apply(spikes.carrier, weight, spikes.bits, geometry)
    dense = _is_dense(spikes, geometry)
    if hasattr(conv, "packed_rows") and infers:
        if dense:
            return conv(spikes.unpack())
        rows = conv.packed_rows(bool(geometry.quads))
        return kernels.forward(spikes.bits, rows, conv.bias, geometry)
    return _Convolve.apply(spikes.carrier, weight, conv.bias, spikes, geometry, dense)


def convolve_and_fire(
    conv: nn.Module, spikes: PackedSpikes, p: LIFParameters
) -> PackedSpikes | None:
    """Run a deployed convolution on spikes, and the neurons that read it, without what is between.

    Args:
        conv: The convolution.
        spikes: ``[T, B, C, H, W]``.
        p: The neurons' parameters.

    Returns:
        The neurons' spikes, ``[T, B, C', H', W']``; ``None`` if they have to be run one by one.
    """
    if torch.is_grad_enabled() or not hasattr(conv, "packed_rows") or conv.groups > 1:
        return None
    steps, geometry = spikes.shape[0], _geometry_of(conv, spikes.flatten(0, 1))
    if geometry.out_channels % 8 or _is_dense(spikes, geometry):
        return None
    rows = conv.packed_rows(bool(geometry.quads))
    bits, count = kernels.forward_and_fire(
        spikes.bits, rows, conv.bias, steps, native.struct_of(p), geometry
    )
    shape = (*spikes.shape[:2], geometry.out_channels, geometry.out_height, geometry.out_width)
    return PackedSpikes(spikes.carrier.new_zeros(()).expand(shape), bits, count)


def attend(qkv: PackedSpikes, num_heads: int, scale: float) -> Tensor:
    """``scale * q (k^T v)`` from spikes; see ``attention.linear_attention``.

    Args:
        qkv: q, k and v, one behind the other in the channels: ``[T, B, 3 C, H, W]``.
        num_heads: Heads that the channels are split into.
        scale: Factor of the result.

    Returns:
        ``[T, B, C, H, W]`` in channels-last memory.
    """
    t, b, c, h, w = qkv.shape
    out = kernels.attention(qkv.bits, (t * b, h * w, c // 3), num_heads, scale)
    return out.view(t, b, h, w, c // 3).permute(0, 1, 4, 2, 3)


def _geometry_of(conv: nn.Module, spikes: PackedSpikes) -> ConvStruct:
    made = hasattr(conv, "packed_rows") and not torch.is_grad_enabled()
    return kernels.geometry(
        tuple(spikes.shape),
        tuple(conv.weight.shape),
        tuple(conv.stride),
        tuple(conv.padding),
        takes_quads(conv.weight, spikes, made, math.prod(conv.stride)),
    )


def takes_quads(weight: Tensor, spikes: PackedSpikes, made: bool, stride: int = 1) -> bool:
    """Whether a convolution adds up the weights of four channels at once.

    Args:
        weight: ``[C', C, h, w]``.
        spikes: What it reads.
        made: Whether the table of those sums was made beforehand.
        stride: Pixels of the input for one of the output.
    """
    if weight.shape[1:].numel() > QUAD_INPUTS:
        return False
    inputs = spikes.shape.numel()
    if made:
        return spikes.count > QUAD_RATE * inputs
    return spikes.count - inputs / 4 > QUAD_SPIKES * stride * weight.size(1)


def _is_dense(spikes: PackedSpikes, geometry: ConvStruct) -> bool:
    return spikes.count > DENSE_RATE * spikes.shape.numel() and not geometry.quads


def is_depthwise(conv: nn.Module) -> bool:
    """Whether the kernels know this kind of depthwise convolution."""
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and tuple(conv.weight.shape[2:]) in ((3, 3), (7, 7))
        and set(conv.stride) == {1}
        and conv.bias is None
    )


def runs_plainly(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor on the CPU is computed with as it is: no autocast, no mode, no tracing."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype == dtype
        and x.numel() > 0
        and _get_current_dispatch_mode() is None
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
    )


def is_watched(module: nn.Module) -> bool:
    """Whether somebody wants to see what goes in or comes out: hooks, or a ``forward`` put over."""
    return bool(
        "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or nn.modules.module._has_any_global_hook()
    )


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, carrier: Tensor, weight: Tensor, bits: Tensor, geometry: ConvStruct
    ) -> Tensor:
        ctx.save_for_backward(bits, weight)
        ctx.geometry = geometry
        return kernels.depthwise(bits, weight, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_out: Tensor) -> tuple:
        (bits, weight), g = ctx.saved_tensors, ctx.geometry
        grad_out = grad_out.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _grad_input(grad_out, weight, g, groups=weight.size(0))
        if ctx.needs_input_grad[1]:
            grad_weight = kernels.depthwise_grad_weight(bits, grad_out, g)
        return grad_x, grad_weight, None, None


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        carrier: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        spikes: PackedSpikes,
        geometry: ConvStruct,
        dense: bool,
    ) -> Tensor:
        ctx.save_for_backward(spikes.bits, weight)
        ctx.geometry = geometry
        if dense:
            return F.conv2d(spikes.unpack(), weight, bias, *_steps_of(geometry))
        packed = kernels.pack_weight(weight, bool(geometry.quads))
        return kernels.forward(spikes.bits, packed, bias, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_out: Tensor) -> tuple:
        (bits, weight), g = ctx.saved_tensors, ctx.geometry
        grad_out = grad_out.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _grad_input(grad_out, weight, g)
        if ctx.needs_input_grad[1] and (g.stride_height, g.stride_width) == (1, 1):
            grad_weight = kernels.grad_weight(bits, grad_out, g)
        elif ctx.needs_input_grad[1]:
            spikes = kernels.unpack(
                bits, grad_out.new_empty(g.images, g.height, g.width, g.channels)
            )
            grad_weight = _grads(grad_out, spikes.permute(0, 3, 1, 2), weight, g, 1, 1)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_out.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None, None


def _grad_input(grad_out: Tensor, weight: Tensor, g: ConvStruct, groups: int = 1) -> Tensor:
    kernel, stride = weight.shape[2:], (g.stride_height, g.stride_width)
    enough = g.images * g.height * g.width >= FILTERED_PIXELS
    if groups == 1 and kernel == (3, 3) and stride == (1, 1) and enough:
        return kernels.grad_input(grad_out, weight, g)
    x = grad_out.new_empty(g.images, g.height, g.width, g.channels)  # for its shape alone
    return _grads(grad_out, x.permute(0, 3, 1, 2), weight, g, groups, 0)


def _grads(
    grad_out: Tensor, x: Tensor, weight: Tensor, g: ConvStruct, groups: int, which: int
) -> Tensor:
    mask = [which == i for i in range(3)]
    stride, padding = _steps_of(g)
    return torch.ops.aten.convolution_backward(
        grad_out, x, weight, None, stride, padding, (1, 1), False, (0, 0), groups, mask
    )[which]


def _steps_of(g: ConvStruct) -> tuple[tuple[int, int], tuple[int, int]]:
    return (g.stride_height, g.stride_width), (g.pad_height, g.pad_width)
