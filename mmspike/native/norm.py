"""Batch norms: those before a neuron, and the backward pass of the others (``csrc/norm.h``)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmspike.native.checks import CHANNELS_LAST, pointer
from mmspike.native.library import NormStruct, call


class Norm(NamedTuple):
    """A batch norm before a neuron, ``x = scale * y + shift``; each ``[C]``, float32.

    ``mean`` is what the gradient's second sum is taken about.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor


def struct_of(norm: Norm | None, y: Tensor) -> NormStruct | None:
    """The norm as the kernels of the neuron take it, if there is one.

    Args:
        norm: The norm.
        y: What it reads, ``[T, N]``, in channels-last order.

    Raises:
        TypeError: If a tensor is not of float32.
        ValueError: If sizes do not fit together, or a tensor is not contiguous on the CPU.
    """
    if norm is None:
        return None
    if y.dtype != torch.float32:
        raise TypeError(f"x: expected torch.float32 with a norm, got {y.dtype}")
    channels = norm.scale.numel()
    if channels == 0 or y.size(1) % channels:
        raise ValueError(
            f"norm: expected a number of channels that divides the {y.size(1)} elements of a row, "
            f"got {channels}"
        )
    shape = (channels,)
    return NormStruct(
        pointer("scale", norm.scale, shape),
        pointer("shift", norm.shift, shape),
        pointer("mean", norm.mean, shape),
        channels,
    )


def sums(grad: Tensor, y: Tensor, mean: Tensor) -> Tensor:
    """Sums of ``grad`` and of ``grad * (y - mean)``, over all but the channels.

    Args:
        grad: Gradient of a norm's output, ``[..., C, H, W]``, dense and float32, with the channels
            last in memory.
        y: The norm's input, laid out alike.
        mean: ``[C]``.

    Returns:
        ``[2, C]``, float64.

    Raises:
        TypeError: If a tensor is not of float32.
        ValueError: If a tensor is of another shape or layout, or not on the CPU.
    """
    y_pointer, channels = _map(y)
    totals = torch.zeros(2, channels, dtype=torch.float64)
    call(
        "norm_sums",
        pointer("grad", grad, y.shape, layout=CHANNELS_LAST),
        y_pointer,
        pointer("mean", mean, (channels,)),
        totals.data_ptr(),
        y.numel(),
        channels,
    )
    return totals


def backward(
    grad: Tensor, y: Tensor, out: Tensor, mean: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> None:
    """Turn the gradient of a norm's output into that of its input ``y``.

    Args:
        grad: Gradient of the norm's output, ``[..., C, H, W]``, dense and float32, with the
            channels last in memory.
        y: The norm's input, laid out alike.
        out: Where ``a * grad + b * (y - mean) + c`` is written, laid out alike; may be ``grad``.
        mean: ``[C]``, as a, b and c.
        a: Factor of the gradient.
        b: Factor of the input.
        c: What is added.

    Raises:
        TypeError: If a tensor is not of float32.
        ValueError: If a tensor is of another shape or layout, or not on the CPU.
    """
    y_pointer, channels = _map(y)
    of_channels = (channels,)
    call(
        "norm_backward",
        pointer("grad", grad, y.shape, layout=CHANNELS_LAST),
        y_pointer,
        pointer("out", out, y.shape, layout=CHANNELS_LAST),
        pointer("mean", mean, of_channels),
        pointer("a", a, of_channels),
        pointer("b", b, of_channels),
        pointer("c", c, of_channels),
        y.numel(),
        channels,
    )


def _map(y: Tensor) -> tuple[int, int]:
    """Where ``y`` begins, and C."""
    if not isinstance(y, Tensor) or y.dim() < 3 or y.size(-3) == 0:
        given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"y: expected shape [..., C, H, W] with channels, got {given}")
    return pointer("y", y, y.shape, layout=CHANNELS_LAST), y.size(-3)
