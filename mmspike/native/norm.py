"""Batch norms: those before a neuron, and the backward pass of the others (``csrc/norm.h``)."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from mmspike.native.library import NormStruct, call, pointer


class Norm(NamedTuple):
    """A batch norm before a neuron, ``x = scale * y + shift``; each ``[C]``, float32.

    ``mean`` is what the gradient's second sum is taken about.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor


def reference(norm: Norm | None) -> object:
    """The norm as the kernels of the neuron take it."""
    if norm is None:
        return None
    return ctypes.byref(NormStruct(*(x.data_ptr() for x in norm), norm.scale.numel()))


def sums(grad: Tensor, y: Tensor, mean: Tensor) -> Tensor:
    """Sums of ``grad`` and of ``grad * (y - mean)``, over all but the channels.

    Args:
        grad: Gradient of a norm's output, dense and float32, with the channels last in memory.
        y: The norm's input, laid out alike.
        mean: ``[C]``.

    Returns:
        ``[2, C]``, float64.
    """
    sums = torch.zeros(2, mean.numel(), dtype=torch.float64)
    pointers = map(pointer, (grad, y, mean, sums))
    sizes = map(ctypes.c_int64, (y.numel(), mean.numel()))
    call("norm_sums", *pointers, *sizes, torch.get_num_threads())
    return sums


def backward(
    grad: Tensor, y: Tensor, out: Tensor, mean: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> None:
    """Turn the gradient of a norm's output into that of its input ``y``.

    Writes ``a * grad + b * (y - mean) + c``, with one of each per channel, to ``out``, which may be
    ``grad``; all three are dense and float32, with the channels last in memory.
    """
    pointers = map(pointer, (grad, y, out, mean, a, b, c))
    sizes = map(ctypes.c_int64, (y.numel(), mean.numel()))
    call("norm_backward", *pointers, *sizes, torch.get_num_threads())
