"""What the implementations share: parameters, sequences as rows of memory, the autograd node."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from spikingjelly.activation_based import surrogate as sj_surrogate
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class LIFParameters(NamedTuple):
    """What :func:`mmspike.neurons.functional.lif_multi_step` takes beside the input."""

    tau: float
    v_threshold: float
    v_reset: float | None
    decay_input: bool
    surrogate: sj_surrogate.SurrogateFunctionBase
    detach_reset: bool


class IntegerParameters(NamedTuple):
    """What :func:`mmspike.neurons.functional.integer_lif_multi_step` takes beside the input."""

    levels: int
    beta: float
    normalize: bool
    detach_reset: bool


def is_dense_per_step(x_seq: Tensor) -> bool:
    """Whether the elements of every step lie side by side in memory, in whatever order."""
    if x_seq.numel() == 0 or x_seq.dim() < 2:
        return x_seq.is_contiguous()
    expected = 1
    sizes = zip(x_seq.stride()[1:], x_seq.shape[1:], strict=True)
    for stride, size in sorted((s, n) for s, n in sizes if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def dense_per_step(x_seq: Tensor) -> Tensor:
    """``x_seq``, copied if the elements of a step are apart; channels that are last stay so."""
    if is_dense_per_step(x_seq):
        return x_seq
    if x_seq.dim() == 5 and x_seq.stride(2) == 1:
        return x_seq.movedim(2, -1).contiguous().movedim(-1, 2)
    return x_seq.contiguous()


def empty_like_steps(x_seq: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty tensor whose steps are laid out as those of ``x_seq``, one after the other."""
    if x_seq.dim() < 2:
        return torch.empty_like(x_seq, dtype=dtype)
    strides = (x_seq[0].numel(), *x_seq.stride()[1:])
    return x_seq.new_empty(x_seq.numel(), dtype=dtype).as_strided(x_seq.shape, strides)


def laid_out_like(grad_seq: Tensor, x_seq: Tensor) -> Tensor:
    """``grad_seq`` with each step laid out in memory as that of ``x_seq``; a copy where needed."""
    axes = zip(x_seq.shape[1:], grad_seq.stride()[1:], x_seq.stride()[1:], strict=True)
    if all(n == 1 or a == b for n, a, b in axes) and is_dense_per_step(grad_seq):
        return grad_seq
    return empty_like_steps(x_seq).copy_(grad_seq)


def rows(x_seq: Tensor) -> Tensor:
    """A dense ``x_seq`` as ``[T, N]``, in the order of memory."""
    if x_seq.dim() < 2 or x_seq.numel() == 0:
        return x_seq.reshape(x_seq.size(0), -1)
    return x_seq.as_strided((x_seq.size(0), x_seq[0].numel()), (x_seq.stride(0), 1))


Forward = Callable[[Tensor, Tensor, LIFParameters], None]
"""``forward(x, s, p)`` writes the spikes of ``x`` into ``s``; both ``[T, N]``."""

Backward = Callable[[Tensor, Tensor, Tensor, LIFParameters], None]
"""``backward(x, grad_s, grad_x, p)`` writes the gradient of ``x`` into ``grad_x``, ``[T, N]``."""


class LIFFunction(torch.autograd.Function):
    """A LIF by kernels over rows of memory; the input is all that is kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x_seq: Tensor, p: LIFParameters, forward: Forward, backward: Backward
    ) -> Tensor:
        """Spikes, shaped and typed like ``x_seq``, each step laid out in memory as its."""
        x_seq = dense_per_step(x_seq)
        ctx.save_for_backward(x_seq)
        ctx.p, ctx.kernel = p, backward
        s_seq = empty_like_steps(x_seq)
        forward(rows(x_seq), rows(s_seq), p)
        return s_seq

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s_seq: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient of ``x_seq``."""
        (x_seq,) = ctx.saved_tensors
        return gradient(x_seq, grad_s_seq, ctx.p, ctx.kernel), None, None, None


def gradient(x_seq: Tensor, grad_s_seq: Tensor, p: LIFParameters, backward: Backward) -> Tensor:
    """The gradient of what a neuron reads, from that of its spikes.

    Args:
        x_seq: Input, ``[T, ...]``, each step dense in memory.
        grad_s_seq: Gradient of the spikes, shaped like it.
        p: The neuron's parameters.
        backward: The kernel.

    Returns:
        The gradient, laid out as ``x_seq``.
    """
    grad_s_seq = laid_out_like(grad_s_seq, x_seq)
    grad_x_seq = empty_like_steps(x_seq)
    backward(rows(x_seq), rows(grad_s_seq), rows(grad_x_seq), p)
    return grad_x_seq
