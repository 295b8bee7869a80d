"""LIF in C++ for the CPU: all steps in one pass over memory, in vectors, on torch's threads.

The backward pass computes the potentials again from the input, which is all that is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import surrogate as sj_surrogate
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.native import lif
from mmspike.native.library import LIFStruct, is_available
from mmspike.native.norm import Norm
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
        lif.forward(rows(x_seq), rows(s_seq), struct_of(p))
        return s_seq

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s_seq: Tensor) -> tuple[Tensor, None]:
        (x_seq,) = ctx.saved_tensors
        return gradient(x_seq, grad_s_seq, ctx.p), None


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
        sums: As in :func:`mmspike.native.lif.backward`.

    Returns:
        The gradient of the norm's output, or of ``x_seq`` without one; laid out as ``x_seq``.
    """
    grad_s_seq = laid_out_like(grad_s_seq, x_seq)
    grad_x_seq = empty_like_steps(x_seq)
    lif.backward(rows(x_seq), rows(grad_s_seq), rows(grad_x_seq), struct_of(p), norm, sums)
    return grad_x_seq


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
