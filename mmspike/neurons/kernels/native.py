"""LIF in C++ for the CPU: all steps in one pass over memory, in vectors, on torch's threads.

The backward pass computes the potentials again from the input, which is all that is kept.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from spikingjelly.activation_based import surrogate as sj_surrogate
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.native.library import DTYPES, LIFStruct, NormStruct, call, is_available, pointer
from mmspike.neurons.kernels.common import (
    LIFParameters,
    empty_like_steps,
    is_dense_per_step,
    laid_out_like,
    rows,
)

SURROGATES: dict[type, int] = {sj_surrogate.Sigmoid: 0, sj_surrogate.ATan: 1}
"""Surrogates that the backward pass knows, with the numbers that the kernels know them by."""


def supports(surrogate: object) -> bool:
    """Whether the kernels are compiled and know this surrogate function."""
    return is_available() and type(surrogate) in SURROGATES and surrogate.spiking


def lif_multi_step(x_seq: Tensor, **parameters: Any) -> Tensor:
    """See :func:`mmspike.neurons.functional.lif_multi_step`: the same spikes and gradients.

    Args:
        x_seq: Input on the CPU, ``[T, ...]``.
        **parameters: All those of the reference; ``supports(surrogate)`` must hold.

    Returns:
        Spikes of 0 and 1, shaped and typed like ``x_seq``, each step laid out in memory as its.

    Raises:
        RuntimeError: If the kernels were not compiled.
    """
    return _LIF.apply(x_seq, LIFParameters(**parameters))


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_seq: Tensor, p: LIFParameters) -> Tensor:
        if not is_dense_per_step(x_seq):
            x_seq = x_seq.contiguous()
        ctx.save_for_backward(x_seq)
        ctx.p = p
        s_seq = empty_like_steps(x_seq)
        forward(rows(x_seq), p, rows(s_seq))
        return s_seq

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s_seq: Tensor) -> tuple[Tensor, None]:
        (x_seq,) = ctx.saved_tensors
        return gradient(x_seq, grad_s_seq, ctx.p), None


class Norm(NamedTuple):
    """A batch norm in front of a neuron, ``x = scale * y + shift``; each ``[C]``, float32.

    ``mean`` is what the gradient's second sum is taken about.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor


def forward(x: Tensor, p: LIFParameters, spikes: Tensor, norm: Norm | None = None) -> int:
    """Write the spikes of ``x``.

    Args:
        x: Input, ``[T, N]``; float32 with the channels last, if there is a norm.
        p: The neuron's parameters.
        spikes: Where to, contiguous: ``[T, N]`` in the type of ``x``, or bytes ``[T, N / 8]``,
            which get a bit each, the first neuron the lowest of the first byte; N is then a
            multiple of 8.
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
        _reference(norm),
        ctypes.byref(struct_of(p)),
        torch.get_num_threads(),
    )


def gradient(
    x_seq: Tensor,
    grad_s_seq: Tensor,
    p: LIFParameters,
    norm: Norm | None = None,
    sums: Tensor | None = None,
) -> Tensor:
    """The gradient of what a neuron reads, from that of its spikes.

    Args:
        x_seq: Input, ``[T, ...]``, each step dense in memory.
        grad_s_seq: Gradient of the spikes, shaped like it.
        p: The neuron's parameters.
        norm: What was applied to ``x_seq`` first.
        sums: Zeros ``[2, C]`` in float64, to which the gradient's sums over all but the channels
            are added, and those of its product with ``x_seq - mean``; wanted with a norm.

    Returns:
        The gradient of the norm's output, or of ``x_seq`` without one; laid out as ``x_seq``.
    """
    grad_s_seq = laid_out_like(grad_s_seq, x_seq)
    grad_x_seq = empty_like_steps(x_seq)
    x, grad_s = rows(x_seq), rows(grad_s_seq)
    steps, n = x.shape
    call(
        "lif_backward",
        DTYPES[x.dtype],
        pointer(x),
        pointer(grad_s),
        pointer(grad_x_seq),
        *map(ctypes.c_int64, (steps, n, x.stride(0), grad_s.stride(0))),
        _reference(norm),
        pointer(sums),
        ctypes.byref(struct_of(p)),
        torch.get_num_threads(),
    )
    return grad_x_seq


def norm_sums(grad: Tensor, y: Tensor, mean: Tensor) -> Tensor:
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


def norm_backward(
    grad: Tensor, y: Tensor, out: Tensor, mean: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> None:
    """Turn the gradient of a norm's output into that of its input ``y``.

    Writes ``a * grad + b * (y - mean) + c``, with one of each per channel, to ``out``, which may be
    ``grad``; all three are dense and float32, with the channels last in memory.
    """
    pointers = map(pointer, (grad, y, out, mean, a, b, c))
    sizes = map(ctypes.c_int64, (y.numel(), mean.numel()))
    call("norm_backward", *pointers, *sizes, torch.get_num_threads())


def _reference(norm: Norm | None) -> object:
    if norm is None:
        return None
    return ctypes.byref(NormStruct(*(x.data_ptr() for x in norm), norm.scale.numel()))


def struct_of(p: LIFParameters) -> LIFStruct:
    """The parameters as the kernels take them."""
    return LIFStruct(
        tau=p.tau,
        threshold=p.v_threshold,
        rest=p.v_reset or 0.0,
        alpha=p.surrogate._sg_params.get("alpha", 0.0),
        soft_reset=p.v_reset is None,
        decay_input=p.decay_input,
        detach_reset=p.detach_reset,
        surrogate=SURROGATES.get(type(p.surrogate), -1),
    )
