"""Calls of the convolutions in kernels.h.

Most add up rows of weights where there are spikes: the work grows with the number of spikes, not
with the number of inputs. Spikes come as bits, eight in a byte, in channels-last order.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from mmspike.native.library import ConvStruct, loaded, pointer


def geometry(
    shape: Sequence[int], weight: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> ConvStruct:
    """Describe a convolution to the kernels.

    Args:
        shape: Of the input, ``[N, C, H, W]``.
        weight: Shape of the weights, ``[C', C, h, w]``.
        stride: Along height and width.
        padding: Along height and width.
    """
    n, c, h, w = shape
    out = [
        (size + 2 * pad - kernel) // step + 1
        for size, pad, kernel, step in zip((h, w), padding, weight[2:], stride, strict=True)
    ]
    return ConvStruct(n, h, w, c, *out, weight[0], *weight[2:], *stride, *padding)


def pack_weight(weight: Tensor) -> Tensor:
    """Lay out weights ``[C', C, h, w]``, float32, for :func:`forward`."""
    conv = ConvStruct(
        channels=weight.size(1),
        out_channels=weight.size(0),
        kernel_height=weight.size(2),
        kernel_width=weight.size(3),
    )
    packed = weight.new_empty(loaded().mmspike_packed_size(ctypes.byref(conv)))
    loaded().mmspike_pack_weight(
        pointer(weight),
        (ctypes.c_int64 * 4)(*weight.stride()),
        pointer(packed),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return packed


def forward(
    bits: Tensor, packed: Tensor, bias: Tensor | None, base: Tensor | None, conv: ConvStruct
) -> Tensor:
    """Convolve spikes.

    Args:
        bits: Spikes in the order ``[N, H, W, C]``.
        packed: What :func:`pack_weight` gave.
        bias: ``[C']`` or ``None``.
        base: What the result is added to, shaped and laid out like it, or ``None``.
        conv: What :func:`geometry` gave.

    Returns:
        ``[N, C', H', W']`` in channels-last memory.
    """
    out = packed.new_empty(conv.images, conv.out_height, conv.out_width, conv.out_channels)
    loaded().mmspike_conv_forward(
        pointer(bits),
        pointer(packed),
        pointer(bias),
        pointer(base),
        pointer(out),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return out.permute(0, 3, 1, 2)


def grad_weight(bits: Tensor, grad_out: Tensor, conv: ConvStruct) -> Tensor:
    """Gradient of the weights, ``[C', C, h, w]``, at stride 1.

    Args:
        bits: Spikes in the order ``[N, H, W, C]``.
        grad_out: Gradient of the output, ``[N, C', H', W']`` in channels-last memory.
        conv: What :func:`geometry` gave.
    """
    grad = grad_out.new_empty(
        conv.out_channels, conv.channels, conv.kernel_height, conv.kernel_width
    )
    loaded().mmspike_conv_grad_weight(
        pointer(bits), pointer(grad_out), pointer(grad), ctypes.byref(conv), torch.get_num_threads()
    )
    return grad


def depthwise(bits: Tensor, weight: Tensor, conv: ConvStruct) -> Tensor:
    """Convolve every channel by itself, 3 x 3 or 7 x 7, at stride 1.

    Args:
        bits: Spikes in the order ``[N, H, W, C]``.
        weight: ``[C, 1, h, w]``.
        conv: What :func:`geometry` gave.

    Returns:
        ``[N, C, H', W']`` in channels-last memory.
    """
    out = weight.new_empty(conv.images, conv.out_height, conv.out_width, conv.channels)
    rows = weight.flatten(1).t().contiguous()  # [h * w, C]
    loaded().mmspike_depthwise_forward(
        pointer(bits),
        pointer(rows),
        pointer(out),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return out.permute(0, 3, 1, 2)


def depthwise_grad_weight(bits: Tensor, grad_out: Tensor, conv: ConvStruct) -> Tensor:
    """Gradient of the weights of :func:`depthwise`, ``[C, 1, h, w]``.

    Args:
        bits: As there.
        grad_out: Gradient of the output, in channels-last memory.
        conv: As there.
    """
    h, w = conv.kernel_height, conv.kernel_width
    grad = grad_out.new_empty(h, w, conv.channels)
    loaded().mmspike_depthwise_grad_weight(
        pointer(bits),
        pointer(grad_out),
        pointer(grad),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return grad.permute(2, 0, 1).unsqueeze(1)


def unpack(bits: Tensor, spikes: Tensor) -> Tensor:
    """Write every bit as a float 0 or 1 into ``spikes``, in the order of its memory."""
    loaded().mmspike_unpack(
        pointer(bits), pointer(spikes), ctypes.c_int64(spikes.numel()), torch.get_num_threads()
    )
    return spikes
