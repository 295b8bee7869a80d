"""Calls of the convolutions, of their gradients and of the attention.

They are in conv.h, conv_grad.h, winograd.h, depthwise.h and attention.h. Most add up rows of
weights where there are spikes: the work grows with the number of spikes, not with the number of
inputs. Spikes come as bits, eight in a byte, in channels-last order.
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
    quads: bool = False,
) -> ConvStruct:
    """Describe a convolution to the kernels.

    Args:
        shape: Of the input, ``[N, C, H, W]``.
        weight: Shape of the weights, ``[C', C, h, w]``.
        stride: Along height and width.
        padding: Along height and width.
        quads: As the weights were packed.

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
    return ConvStruct(n, h, w, c, *out, weight[0], *weight[2:], *stride, *padding, quads)


def pack_weight(weight: Tensor, quads: bool = False) -> Tensor:
    """Lay out weights ``[C', C, h, w]``, float32, for :func:`forward`.

    Args:
        weight: The weights.
        quads: Whether to add up the weights of every choice among four neighbouring input channels
            beforehand. Then a pixel takes no more than ``C / 4`` additions per tap, of rows from a
            table four times as large: faster at high rates, if the table stays in the cache.
    """
    conv = ConvStruct(
        channels=weight.size(1),
        out_channels=weight.size(0),
        kernel_height=weight.size(2),
        kernel_width=weight.size(3),
        quads=quads,
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


def attention(bits: Tensor, shape: tuple[int, int, int], num_heads: int, scale: float) -> Tensor:
    """``scale * q (k^T v)`` head by head, from spikes.

    Args:
        bits: q, k and v, one behind the other in the channels, in the order ``[N, pixels, 3 C]``.
        shape: N, pixels and C.
        num_heads: Heads that the channels are split into.
        scale: Factor of the result.

    Returns:
        ``[N, pixels, C]``, float32.
    """
    out = torch.empty(shape, dtype=torch.float32, device="cpu")
    call(
        "attention",
        pointer(bits),
        pointer(out),
        *map(ctypes.c_int64, (*shape, num_heads)),
        ctypes.c_float(scale),
        torch.get_num_threads(),
    )
    return out


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
        The gradient in channels-last memory, by minimal filtering (``winograd.h``): a quarter of
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
    call(
        "depthwise_forward",
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
    call(
        "depthwise_grad_weight",
        pointer(bits),
        pointer(grad_out),
        pointer(grad),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return grad.permute(2, 0, 1).unsqueeze(1)


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
