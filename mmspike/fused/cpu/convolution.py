"""Convolutions on the CPU whose work grows with the number of spikes.

Layers that read spikes as bits (``spikes.py``) add up rows of weights where there are any
(``mmspike/native``). Bits are all that is kept of the spikes for the backward pass.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.fused.cpu.laid_out import LaidOutConv2d
from mmspike.fused.cpu.norm import normalise
from mmspike.fused.cpu.read_only import plain
from mmspike.fused.cpu.spikes import PackedSpikes, Spikes
from mmspike.fused.protocols import is_split
from mmspike.fused.watch import is_watched
from mmspike.layers.constant import is_constant
from mmspike.native import conv as kernels
from mmspike.native import depthwise
from mmspike.native.library import ConvStruct
from mmspike.neurons.kernels import native
from mmspike.neurons.kernels.common import LIFParameters

DENSE_RATE = 0.5
"""Firing rate above which a dense convolution over all inputs is faster."""

TABLE_INPUTS = 320
"""Inputs of a pixel (channels times kernel) up to which sums over four channels may be faster than
those spike by spike, at any rate: the cache holds their table."""

TABLE_RATE = 0.24
"""Firing rate above which they are where their table was made beforehand."""

TABLE_SPIKES = 256
"""Spikes of a channel beyond a quarter of its pixels that pay for making the table anew; more where
a stride leaves pixels out."""

WINOGRAD_PIXELS = 1024
"""Pixels of all images from which on Winograd's algorithm pays in the inputs' gradient: it
transforms the weights, to four times as many numbers, in every call."""


def convolve(layer: nn.Module, spikes: Spikes) -> Tensor:
    """Run a layer on spikes.

    Args:
        layer: A convolution, or several layers of which the first is one.
        spikes: ``[N, C, H, W]``, bits or not.

    Returns:
        ``[N, C', H', W']``.
    """
    if is_split(layer) and not is_watched(layer):
        floats = isinstance(spikes, Tensor)
        are_constant = partial(is_constant, spikes) if floats else spikes.are_constant
        return layer.rest(convolve(layer.first, spikes), normalise, are_constant)
    if not isinstance(spikes, PackedSpikes):
        return layer(spikes)
    weight, geometry = plain(layer.weight), _geometry_of(layer, spikes)
    infers = not torch.is_grad_enabled()
    if layer.groups > 1 and infers:
        return depthwise.forward(spikes.bits, weight, geometry)
    if layer.groups > 1:
        return _Depthwise.apply(spikes.carrier, weight, spikes.bits, geometry)
    dense = _is_dense(spikes, geometry)
    if isinstance(layer, LaidOutConv2d) and infers:
        if dense:
            return layer(spikes.unpack())
        rows = layer.weight_rows(bool(geometry.table))
        return kernels.forward(spikes.bits, rows, layer.bias, geometry)
    return _Convolve.apply(spikes.carrier, weight, layer.bias, spikes, geometry, dense)


def convolve_and_fire(
    conv: LaidOutConv2d, spikes: PackedSpikes, p: LIFParameters
) -> PackedSpikes | None:
    """Run a deployed convolution on spikes, and the neurons that read it, without what is between.

    Args:
        conv: The convolution.
        spikes: ``[T, B, C, H, W]``.
        p: The neurons' parameters.

    Returns:
        The neurons' spikes, ``[T, B, C', H', W']``; ``None`` if they have to be run one by one.
    """
    if torch.is_grad_enabled() or conv.groups > 1:
        return None
    steps, geometry = spikes.shape[0], _geometry_of(conv, spikes.flatten(0, 1))
    if geometry.out_channels % 8 or _is_dense(spikes, geometry):
        return None
    rows = conv.weight_rows(bool(geometry.table))
    bits, count = kernels.forward_and_fire(
        spikes.bits, rows, conv.bias, steps, native.struct_of(p), geometry
    )
    shape = (*spikes.shape[:2], geometry.out_channels, geometry.out_height, geometry.out_width)
    return PackedSpikes(spikes.carrier.new_zeros(()).expand(shape), bits, count)


def _geometry_of(conv: nn.Module, spikes: PackedSpikes) -> ConvStruct:
    made = isinstance(conv, LaidOutConv2d) and not torch.is_grad_enabled()
    return kernels.geometry(
        tuple(spikes.shape),
        tuple(conv.weight.shape),
        tuple(conv.stride),
        tuple(conv.padding),
        takes_table(conv.weight, spikes, made, math.prod(conv.stride)),
    )


def takes_table(weight: Tensor, spikes: PackedSpikes, made: bool, stride: int = 1) -> bool:
    """Whether a convolution adds up the weights of four channels at once.

    Args:
        weight: ``[C', C, h, w]``.
        spikes: What it reads.
        made: Whether the table of those sums was made beforehand.
        stride: Pixels of the input for one of the output.
    """
    if weight.shape[1:].numel() > TABLE_INPUTS or weight.size(1) % 4:
        return False
    inputs = spikes.shape.numel()
    if made:
        return spikes.count > TABLE_RATE * inputs
    return spikes.count - inputs / 4 > TABLE_SPIKES * stride * weight.size(1)


def _is_dense(spikes: PackedSpikes, geometry: ConvStruct) -> bool:
    return spikes.count > DENSE_RATE * spikes.shape.numel() and not geometry.table


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, carrier: Tensor, weight: Tensor, bits: Tensor, geometry: ConvStruct
    ) -> Tensor:
        ctx.save_for_backward(bits, weight)
        ctx.geometry = geometry
        return depthwise.forward(bits, weight, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_out: Tensor) -> tuple:
        (bits, weight), g = ctx.saved_tensors, ctx.geometry
        grad_out = grad_out.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _grad_input(grad_out, weight, g, groups=weight.size(0))
        if ctx.needs_input_grad[1]:
            grad_weight = depthwise.grad_weight(bits, grad_out, g)
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
        laid_out = kernels.lay_out_weight(weight, bool(geometry.table))
        return kernels.forward(spikes.bits, laid_out, bias, geometry)

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
    enough = g.images * g.height * g.width >= WINOGRAD_PIXELS
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
