"""Calls of depthwise convolutions of spikes (``csrc/depthwise.h``)."""

from __future__ import annotations

from torch import Tensor

from mmspike.native.checks import CHANNELS_LAST, STRIDED, bits_pointer, check_conv, pointer
from mmspike.native.library import ConvStruct, call

KERNELS = (3, 7)
"""Sides of the kernels that there are."""


def forward(bits: Tensor, weight: Tensor, conv: ConvStruct) -> Tensor:
    """Convolve every channel by itself, 3 x 3 or 7 x 7, at stride 1.

    Args:
        bits: Spikes, ``[T, bytes of a step]``, a step in the order ``[N / T, H, W, C]`` (see
            :mod:`mmspike.native.conv`).
        weight: ``[C, 1, h, w]``, float32, in any layout.
        conv: What :func:`mmspike.native.conv.geometry` gave.

    Returns:
        ``[N, C, H', W']`` in channels-last memory.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a tensor is of another size, or the convolution is of another kind.
    """
    bits_at, steps = _checked(bits, conv)
    shape = (conv.channels, 1, conv.kernel_height, conv.kernel_width)
    pointer("weight", weight, shape, layout=STRIDED)
    rows = weight.flatten(1).t().contiguous()  # [h * w, C]
    out = weight.new_empty(conv.images, conv.out_height, conv.out_width, conv.channels)
    call("depthwise_forward", bits_at, rows.data_ptr(), out.data_ptr(), steps, conv)
    return out.permute(0, 3, 1, 2)


def grad_weight(bits: Tensor, grad_out: Tensor, conv: ConvStruct) -> Tensor:
    """Gradient of the weights of :func:`forward`, ``[C, 1, h, w]``.

    Args:
        bits: As there.
        grad_out: Gradient of the output, ``[N, C, H', W']``, float32 in channels-last memory.
        conv: As there.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a tensor is of another size or layout, or the convolution is of another kind.
    """
    bits_at, steps = _checked(bits, conv)
    out_shape = (conv.images, conv.channels, conv.out_height, conv.out_width)
    grad_out_at = pointer("grad_out", grad_out, out_shape, layout=CHANNELS_LAST)
    grad = grad_out.new_empty(conv.kernel_height, conv.kernel_width, conv.channels)
    call("depthwise_grad_weight", bits_at, grad_out_at, grad.data_ptr(), steps, conv)
    return grad.permute(2, 0, 1).unsqueeze(1)


def _checked(bits: Tensor, conv: ConvStruct) -> tuple[int, int]:
    """Where the spikes begin, and over how many steps they go."""
    check_conv(conv, unit_stride=True)
    height, width = conv.kernel_height, conv.kernel_width
    if height != width or height not in KERNELS or conv.channels != conv.out_channels:
        raise ValueError(
            f"conv: expected a kernel of 3 x 3 or 7 x 7 and as many channels before as after, got "
            f"{height} x {width} and {conv.channels} to {conv.out_channels}"
        )
    return bits_pointer(bits, conv.images, conv.height * conv.width * conv.channels)
