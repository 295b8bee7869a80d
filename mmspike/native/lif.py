"""Calls of the LIF neuron (``csrc/lif.h``)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmspike.native.checks import CONTIGUOUS, ROWS, pointer
from mmspike.native.library import DTYPES, LIFStruct, call
from mmspike.native.norm import Norm, struct_of


def forward(x: Tensor, spikes: Tensor, neuron: LIFStruct, norm: Norm | None = None) -> int:
    """Write the spikes of ``x``.

    Args:
        x: Input, ``[T, N]``, each row dense, of a type in ``DTYPES``; float32 with the channels
            last, if there is a norm.
        spikes: Where to, contiguous: ``[T, N]`` in the type of ``x``; or bytes
            ``[T, (N + 7) // 8]``, in which every spike gets a bit, the first of a step the lowest
            of the first byte.
        neuron: The neurons' parameters.
        norm: Applied to ``x`` first.

    Returns:
        The number of spikes, if bits were written.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a tensor is of another shape or layout, or not on the CPU.
    """
    x_pointer, steps, n = _rows_of(x)
    bits = spikes.dtype == torch.uint8
    shape = (steps, (n + 7) // 8 if bits else n)
    return call(
        "lif_forward",
        DTYPES[x.dtype],
        x_pointer,
        pointer("spikes", spikes, shape, torch.uint8 if bits else x.dtype),
        bits,
        steps,
        n,
        x.stride(0),
        struct_of(norm, x),
        _checked(neuron),
    )


def backward(
    x: Tensor,
    grad_spikes: Tensor,
    grad_x: Tensor,
    neuron: LIFStruct,
    norm: Norm | None = None,
    sums: Tensor | None = None,
) -> None:
    """Write the gradient of what a neuron reads, from that of its spikes.

    Args:
        x: Input, as for :func:`forward`.
        grad_spikes: Gradient of the spikes, ``[T, N]``, each row dense.
        grad_x: Where the gradient of the norm's output, or of ``x`` without a norm, is written;
            ``[T, N]``, contiguous.
        neuron: The neurons' parameters.
        norm: What was applied to ``x`` first.
        sums: Zeros ``[2, C]`` in float64, to which the gradient's sums over all but the channels
            are added, and those of its product with ``x - mean``; wanted with a norm.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a tensor is of another shape or layout, or not on the CPU, or if the kernels
            do not know the neuron's surrogate function.
    """
    x_pointer, steps, n = _rows_of(x)
    if _checked(neuron).surrogate not in (0, 1):
        raise ValueError(
            f"neuron: expected a surrogate of number 0 or 1, got {neuron.surrogate}: the kernels "
            "do not know this function"
        )
    if norm is not None:
        sums_pointer = pointer("sums", sums, (2, norm.scale.numel()), torch.float64)
    elif sums is None:
        sums_pointer = None
    else:
        raise ValueError("sums: expected None without a norm, got a tensor")
    call(
        "lif_backward",
        DTYPES[x.dtype],
        x_pointer,
        pointer("grad_spikes", grad_spikes, (steps, n), x.dtype, ROWS),
        pointer("grad_x", grad_x, (steps, n), x.dtype, CONTIGUOUS),
        steps,
        n,
        x.stride(0),
        grad_spikes.stride(0),
        struct_of(norm, x),
        sums_pointer,
        neuron,
    )


def _rows_of(x: Tensor) -> tuple[int, int, int]:
    """Where ``x`` begins, T and N."""
    if not isinstance(x, Tensor) or x.dtype not in DTYPES:
        given = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x: expected a tensor of a type in {list(DTYPES)}, got {given}")
    shape = x.shape
    if len(shape) != 2:
        raise ValueError(f"x: expected shape [T, N], got {tuple(shape)}")
    return pointer("x", x, shape, x.dtype, ROWS), *shape


def _checked(neuron: LIFStruct) -> LIFStruct:
    if type(neuron) is not LIFStruct:
        raise TypeError(f"neuron: expected a LIFStruct, got {type(neuron).__name__}")
    return neuron
