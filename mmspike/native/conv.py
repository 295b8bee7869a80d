"""Calls of convolutions and of their gradients (``csrc/conv.h``, ``conv_grad.h``, ``winograd.h``).

All but the gradient of the inputs add up rows of weights where there are spikes: the work grows
with the number of spikes, not with the number of inputs. Spikes come as bits, eight in a byte, in
channels-last order.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import torch
from torch import Tensor

from mmspike.native.library import ConvStruct, LIFStruct, call, loaded, pointer


@lru_cache(maxsize=1024)
def geometry(
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    table: bool = False,
) -> ConvStruct:
    """Describe a convolution to the kernels.

    Args:
        shape: Of the input, ``[N, C, H, W]``.
        weight: Shape of the weights, ``[C', C, h, w]``.
        stride: Along height and width.
        padding: Along height and width.
        table: As the weights were packed.

    Raises:
        RuntimeError: If the kernel does not fit into the padded map.
    """
    n, c, h, w = shape
    out = [
        (size + 2 * pad - kernel) // step + 1
        for size, pad, kernel, step in zip((h, w), padding, weight[2:], stride, strict=True)
    ]
    if min(out) < 1:
        raise RuntimeError(
            f"a convolution of kernel {weight[2:]} and padding {padding} does not fit into a map "
            f"of {h} x {w} pixels"
        )
    return ConvStruct(n, h, w, c, *out, weight[0], *weight[2:], *stride, *padding, table)


def pack_weight(weight: Tensor, table: bool = False) -> Tensor:
    """Lay out weights ``[C', C, h, w]``, float32, for :func:`forward`.

    Args:
        weight: The weights.
        table: Whether to make a lookup table over four channels: the sums of the weights of every
            choice among four neighbouring input channels. Then a pixel takes no more than ``C / 4``
            additions per tap, of rows from a table four times as large as the weights: faster at
            high rates, if the table stays in the cache.
    """
    conv = ConvStruct(
        channels=weight.size(1),
        out_channels=weight.size(0),
        kernel_height=weight.size(2),
        kernel_width=weight.size(3),
        table=table,
    )
    packed = weight.new_empty(loaded().mmspike_packed_size(ctypes.byref(conv)))
    call(
        "pack_weight",
        pointer(weight),
        (ctypes.c_int64 * 4)(*weight.stride()),
        pointer(packed),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return packed


def forward(bits: Tensor, packed: Tensor, bias: Tensor | None, conv: ConvStruct) -> Tensor:
    """Convolve spikes.

    Args:
        bits: Spikes in the order ``[N, H, W, C]``.
        packed: What :func:`pack_weight` gave.
        bias: ``[C']`` or ``None``.
        conv: What :func:`geometry` gave.

    Returns:
        ``[N, C', H', W']`` in channels-last memory.
    """
    out = packed.new_empty(conv.images, conv.out_height, conv.out_width, conv.out_channels)
    call(
        "conv_forward",
        pointer(bits),
        pointer(packed),
        pointer(bias),
        pointer(out),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return out.permute(0, 3, 1, 2)


def forward_and_fire(
    bits: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    time_steps: int,
    neuron: LIFStruct,
    conv: ConvStruct,
) -> tuple[Tensor, int]:
    """Convolve spikes, and let neurons read the result, which is never written to memory.

    Args:
        bits: Spikes in the order ``[T, B, H, W, C]``.
        packed: What :func:`pack_weight` gave.
        bias: ``[C']`` or ``None``.
        time_steps: T.
        neuron: The neurons' parameters.
        conv: What :func:`geometry` gave, with ``N = T * B``; C' is a multiple of 8.

    Returns:
        The neurons' spikes as bits in the order ``[T, B, H', W', C']``, and their number.
    """
    size = conv.images * conv.out_height * conv.out_width * conv.out_channels
    spikes = bits.new_empty(time_steps, size // time_steps // 8)
    count = call(
        "conv_fire",
        pointer(bits),
        pointer(packed),
        pointer(bias),
        pointer(spikes),
        ctypes.c_int64(time_steps),
        ctypes.byref(neuron),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return spikes, count


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
    call(
        "conv_grad_weight",
        pointer(bits),
        pointer(grad_out),
        pointer(grad),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return grad


def grad_input(grad_out: Tensor, weight: Tensor, conv: ConvStruct) -> Tensor:
    """Gradient of the inputs of a 3 x 3 convolution at stride 1, ``[N, C, H, W]``.

    Args:
        grad_out: Gradient of the output, ``[N, C', H', W']``, float32 in channels-last memory.
        weight: ``[C', C, 3, 3]``, float32, in any layout.
        conv: What :func:`geometry` gave.

    Returns:
        The gradient in channels-last memory, by Winograd's algorithm (``winograd.h``): a quarter of
        the products of the definition. Rounding errors are spread over tiles of 4 x 4 pixels, and
        so are values that are not finite; on average they are about 1e-6 of the gradients.
    """
    grad = grad_out.new_empty(conv.images, conv.height, conv.width, conv.channels)
    call(
        "conv_grad_input",
        pointer(grad_out),
        pointer(weight),
        (ctypes.c_int64 * 4)(*weight.stride()),
        pointer(grad),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return grad.permute(0, 3, 1, 2)


def unpack(bits: Tensor, spikes: Tensor) -> Tensor:
    """Write every bit as a float 0 or 1 into ``spikes``, in the order of its memory."""
    call(
        "unpack",
        pointer(bits),
        pointer(spikes),
        ctypes.c_int64(spikes.numel()),
        torch.get_num_threads(),
    )
    return spikes
