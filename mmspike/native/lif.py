"""Calls of the LIF neuron (``csrc/lif.h``)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from mmspike.native.library import DTYPES, LIFStruct, call, pointer
from mmspike.native.norm import Norm, reference


def forward(x: Tensor, spikes: Tensor, neuron: LIFStruct, norm: Norm | None = None) -> int:
    """Write the spikes of ``x``.

    Args:
        x: Input, ``[T, N]``; float32 with the channels last, if there is a norm.
        spikes: Where to, contiguous: ``[T, N]`` in the type of ``x``, or bytes ``[T, N / 8]``,
            which get a bit each, the first neuron the lowest of the first byte; N is then a
            multiple of 8.
        neuron: The neurons' parameters.
        norm: Applied to ``x`` first.

    Returns:
        The number of spikes, if bits were written.
    """
    steps, n = x.shape
    return call(
        "lif_forward",
        DTYPES[x.dtype],
        pointer(x),
        pointer(spikes),
        int(spikes.dtype == torch.uint8),
        *map(ctypes.c_int64, (steps, n, x.stride(0))),
        reference(norm),
        ctypes.byref(neuron),
        torch.get_num_threads(),
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
        x: Input, ``[T, N]``.
        grad_spikes: Gradient of the spikes, ``[T, N]``.
        grad_x: Where the gradient of the norm's output, or of ``x`` without a norm, is written;
            ``[T, N]``, contiguous.
        neuron: The neurons' parameters.
        norm: What was applied to ``x`` first.
        sums: Zeros ``[2, C]`` in float64, to which the gradient's sums over all but the channels
            are added, and those of its product with ``x - mean``; wanted with a norm.
    """
    steps, n = x.shape
    call(
        "lif_backward",
        DTYPES[x.dtype],
        pointer(x),
        pointer(grad_spikes),
        pointer(grad_x),
        *map(ctypes.c_int64, (steps, n, x.stride(0), grad_spikes.stride(0))),
        reference(norm),
        pointer(sums),
        ctypes.byref(neuron),
        torch.get_num_threads(),
    )
