"""Calls of convolutions and of their gradients (``csrc/conv.h``, ``conv_grad.h``, ``winograd.h``).

All but the gradient of the inputs add up rows of weights where there are spikes: the work grows
with the number of spikes, not with the number of inputs.

Spikes come as bits, ``[T, bytes of a step]``: those of a step, over ``N / T`` images, lie side by
side in channels-last order, the first in the lowest bit of the first byte, and every step begins
with a byte.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

from torch import Tensor

from mmspike.native.checks import CHANNELS_LAST, STRIDED, bits_pointer, check_conv, pointer
from mmspike.native.library import ConvStruct, LIFStruct, call, loaded


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
        weight: Shape of the weights, ``[C', C, h, w]``; ``[C, 1, h, w]`` of a depthwise one.
        stride: Along height and width.
        padding: Along height and width.
        table: Whether the weights were laid out as a lookup table, see :func:`lay_out_weight`.

    Raises:
        RuntimeError: If the kernel does not fit into the padded map.
        ValueError: If sizes make no sense, or do not fit together.
    """
    (n, c, h, w), kernel = shape, tuple(weight[2:])
    sizes_fit = weight[1] == c or (weight[1] == 1 and weight[0] == c)
    if n < 0 or min(c, h, w, *weight, *stride) < 1 or min(padding) < 0 or not sizes_fit:
        raise ValueError(
            f"expected an input [N, C, H, W] and weights [C', C, h, w] or [C, 1, h, w], all sizes "
            f"and strides at least 1; got input {tuple(shape)}, weights {tuple(weight)}, stride "
            f"{tuple(stride)}, padding {tuple(padding)}"
        )
    if kernel[0] * (w + 2 * padding[1]) * c * 4 >= 2**31:  # numbers of rows have 32 bits
        raise ValueError(f"rows of {w} pixels and {c} channels are too long for the kernels")
    _check_table(c, table)
    out = [
        (size + 2 * pad - side) // step + 1
        for size, pad, side, step in zip((h, w), padding, kernel, stride, strict=True)
    ]
    if min(out) < 1:
        raise RuntimeError(
            f"a convolution of kernel {kernel} and padding {tuple(padding)} does not fit into a "
            f"map of {h} x {w} pixels"
        )
    return ConvStruct(n, h, w, c, *out, weight[0], *kernel, *stride, *padding, table)


def lay_out_weight(weight: Tensor, table: bool = False) -> Tensor:
    """Lay out weights ``[C', C, h, w]``, float32 in any layout, for :func:`forward`.

    Args:
        weight: The weights.
        table: Whether to make a lookup table over four channels: the sums of the weights of every
            choice among four neighbouring input channels. Then a pixel takes no more than ``C / 4``
            additions per tap, of rows from a table four times as large as the weights: faster at
            high rates, if the table stays in the cache. C is then a multiple of 4.

    Raises:
        TypeError: If the weights are not of float32.
        ValueError: If they are of another shape or not on the CPU, or C does not fit a table.
    """
    if weight.dim() != 4 or weight.numel() == 0:
        raise ValueError(f"weight: expected shape [C', C, h, w], got {tuple(weight.shape)}")
    weight_at = pointer("weight", weight, weight.shape, layout=STRIDED)
    out_channels, channels, height, width = weight.shape
    _check_table(channels, table)
    conv = ConvStruct(
        channels=channels,
        out_channels=out_channels,
        kernel_height=height,
        kernel_width=width,
        table=table,
    )
    laid_out = weight.new_empty(loaded().mmspike_laid_out_size(conv), requires_grad=False)
    strides = (ctypes.c_int64 * 4)(*weight.stride())
    call("lay_out_weight", weight_at, strides, laid_out.data_ptr(), conv)
    return laid_out


def forward(bits: Tensor, laid_out: Tensor, bias: Tensor | None, conv: ConvStruct) -> Tensor:
    """Convolve spikes.

    Args:
        bits: Spikes, ``[T, bytes of a step]``, a step in the order ``[N / T, H, W, C]``.
        laid_out: What :func:`lay_out_weight` gave.
        bias: ``[C']`` or ``None``.
        conv: What :func:`geometry` gave.

    Returns:
        ``[N, C', H', W']`` in channels-last memory.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a tensor is of another size, or not contiguous on the CPU.
    """
    bits_at, steps, weights_at, bias_at = _operands(bits, laid_out, bias, conv)
    out = laid_out.new_empty(conv.images, conv.out_height, conv.out_width, conv.out_channels)
    call("conv_forward", bits_at, weights_at, bias_at, out.data_ptr(), steps, conv)
    return out.permute(0, 3, 1, 2)


def forward_and_fire(
    bits: Tensor,
    laid_out: Tensor,
    bias: Tensor | None,
    time_steps: int,
    neuron: LIFStruct,
    conv: ConvStruct,
) -> tuple[Tensor, int]:
    """Convolve spikes, and let neurons read the result, which is never written to memory.

    Args:
        bits: Spikes, ``[T, bytes of a step]``, a step in the order ``[B, H, W, C]``.
        laid_out: What :func:`lay_out_weight` gave.
        bias: ``[C']`` or ``None``.
        time_steps: T.
        neuron: The neurons' parameters.
        conv: What :func:`geometry` gave, with ``N = T * B``; C' is a multiple of 8.

    Returns:
        The neurons' spikes as bits, a step in the order ``[B, H', W', C']``, and their number.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a tensor is of another size, or not contiguous on the CPU.
    """
    bits_at, steps, weights_at, bias_at = _operands(bits, laid_out, bias, conv)
    if steps != time_steps or conv.out_channels % 8:
        raise ValueError(
            f"expected bits over {time_steps} steps and output channels that are a multiple of 8, "
            f"got {steps} steps and {conv.out_channels} channels"
        )
    if type(neuron) is not LIFStruct:
        raise TypeError(f"neuron: expected a LIFStruct, got {type(neuron).__name__}")
    size = conv.images // steps * conv.out_height * conv.out_width * conv.out_channels
    spikes = bits.new_empty(steps, size // 8)
    arguments = (bits_at, weights_at, bias_at, spikes.data_ptr(), steps, neuron, conv)
    return spikes, call("conv_fire", *arguments)


def grad_weight(bits: Tensor, grad_out: Tensor, conv: ConvStruct) -> Tensor:
    """Gradient of the weights, ``[C', C, h, w]``, at stride 1.

    Args:
        bits: Spikes, ``[T, bytes of a step]``, a step in the order ``[N / T, H, W, C]``.
        grad_out: Gradient of the output, ``[N, C', H', W']``, float32 in channels-last memory.
        conv: What :func:`geometry` gave.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a tensor is of another size or layout, or the stride is another.
    """
    check_conv(conv, unit_stride=True)
    bits_at, steps = bits_pointer(bits, conv.images, conv.height * conv.width * conv.channels)
    grad_out_at = pointer("grad_out", grad_out, _out_shape(conv), layout=CHANNELS_LAST)
    kernel = (conv.kernel_height, conv.kernel_width)
    grad = grad_out.new_empty(conv.out_channels, conv.channels, *kernel)
    call("conv_grad_weight", bits_at, grad_out_at, grad.data_ptr(), steps, conv)
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

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a tensor is of another size or layout, or the stride or kernel is another.
    """
    check_conv(conv, unit_stride=True)
    grad_out_at = pointer("grad_out", grad_out, _out_shape(conv), layout=CHANNELS_LAST)
    if (conv.kernel_height, conv.kernel_width) != (3, 3):
        raise ValueError(
            f"conv: expected a kernel of 3 x 3, got {conv.kernel_height} x {conv.kernel_width}"
        )
    shape = (conv.out_channels, conv.channels, 3, 3)
    weight_at = pointer("weight", weight, shape, layout=STRIDED)
    grad = grad_out.new_empty(conv.images, conv.height, conv.width, conv.channels)
    strides = (ctypes.c_int64 * 4)(*weight.stride())
    call("conv_grad_input", grad_out_at, weight_at, strides, grad.data_ptr(), conv)
    return grad.permute(0, 3, 1, 2)


def unpack(bits: Tensor, spikes: Tensor) -> Tensor:
    """Write every bit as a float 0 or 1.

    Args:
        bits: ``[T, bytes of a step]``.
        spikes: Where to, ``[N, ...]``, float32 and contiguous, in the order of the bits; N is a
            multiple of T.

    Returns:
        ``spikes``.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a tensor is of another size, or not contiguous on the CPU.
    """
    spikes_at = pointer("spikes", spikes, spikes.shape)
    images = spikes.size(0)
    bits_at, steps = bits_pointer(bits, images, spikes.numel() // max(images, 1))
    call("unpack", bits_at, spikes_at, spikes.numel(), steps)
    return spikes


def _operands(
    bits: Tensor, laid_out: Tensor, bias: Tensor | None, conv: ConvStruct
) -> tuple[int, int, int, int | None]:
    """Where the spikes begin, over how many steps they go, where weights and bias begin."""
    check_conv(conv)
    bits_at, steps = bits_pointer(bits, conv.images, conv.height * conv.width * conv.channels)
    weights_at = pointer("laid_out", laid_out, (loaded().mmspike_laid_out_size(conv),))
    bias_at = None if bias is None else pointer("bias", bias, (conv.out_channels,))
    return bits_at, steps, weights_at, bias_at


def _out_shape(conv: ConvStruct) -> tuple[int, int, int, int]:
    return conv.images, conv.out_channels, conv.out_height, conv.out_width


def _check_table(channels: int, table: bool) -> None:
    if table and channels % 4:
        raise ValueError(
            f"table: expected channels that are a multiple of 4 with one, got {channels}"
        )
