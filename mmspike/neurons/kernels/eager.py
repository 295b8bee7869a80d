"""LIF in plain torch with a backward pass by hand: any device, no compiler.

Autograd through the reference keeps half a dozen tensors per step; this keeps the input alone and
computes the potentials again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from spikingjelly.activation_based import surrogate as sj_surrogate
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.neurons.functional import lif_charge

SURROGATES = frozenset(
    getattr(sj_surrogate, name)
    for name in ("Sigmoid", "ATan", "Erf", "PiecewiseQuadratic", "Rect", "SoftSign", "SuperSpike")
)
"""Surrogates with a threshold in the forward pass and a slope that is a function of its input."""


class LIFParameters(NamedTuple):
    """What :func:`mmspike.neurons.functional.lif_multi_step` takes beside the input."""

    tau: float
    v_threshold: float
    v_reset: float | None
    decay_input: bool
    surrogate: sj_surrogate.SurrogateFunctionBase
    detach_reset: bool


def supports(surrogate: object) -> bool:
    """Whether the backward pass by hand knows this surrogate function."""
    return type(surrogate) in SURROGATES and surrogate.spiking


def lif_multi_step(x_seq: Tensor, **parameters: Any) -> Tensor:
    """See :func:`mmspike.neurons.functional.lif_multi_step`: the same spikes and gradients.

    Args:
        x_seq: Input, ``[T, ...]``.
        **parameters: All those of the reference; ``supports(surrogate)`` must hold.

    Returns:
        Spikes of 0 and 1, shaped and typed like ``x_seq``.
    """
    return _LIF.apply(x_seq, LIFParameters(**parameters))


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_seq: Tensor, p: LIFParameters) -> Tensor:
        ctx.save_for_backward(x_seq)
        ctx.p = p
        s_seq = torch.empty_like(x_seq)
        for s, (h, _) in zip(s_seq, _potentials(x_seq, p), strict=True):
            torch.ge(h, p.v_threshold, out=s)
        return s_seq

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s_seq: Tensor) -> tuple[Tensor, None]:
        (x_seq,), p = ctx.saved_tensors, ctx.p
        keep = 1 - 1 / p.tau  # dh[t] / dv[t - 1]
        gain = 1 / p.tau if p.decay_input else 1.0  # dh[t] / dx[t]
        steps = list(_potentials(x_seq, p))
        grad_x_seq = torch.empty_like(x_seq)
        grad_v = None  # with respect to the potential after the step
        for t in reversed(range(len(steps))):
            h, fired = steps.pop()
            grad_s = grad_s_seq[t].to(h.dtype)
            if grad_v is not None and not p.detach_reset:
                grad_s = grad_s - grad_v * (p.v_threshold if p.v_reset is None else h - p.v_reset)
            grad_h = _slope(grad_s, h, p)
            if grad_v is not None:
                grad_h += grad_v if p.v_reset is None else grad_v.masked_fill_(fired, 0)
            torch.mul(grad_h, gain, out=grad_x_seq[t])
            if t:
                grad_v = grad_h.mul_(keep)
        return grad_x_seq, None


def _potentials(x_seq: Tensor, p: LIFParameters) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Charged potential and, but in the last step, where it fires; rounded as the reference."""
    half = x_seq.dtype in (torch.float16, torch.bfloat16)
    v = None
    for t, x in enumerate(x_seq):
        h = lif_charge(x.float() if half else x, v, p.tau, p.v_reset, p.decay_input)
        fired = h >= p.v_threshold if t + 1 < len(x_seq) else None
        yield h, fired
        if fired is not None:
            if p.v_reset is None:
                v = h - fired.to(h.dtype) * p.v_threshold
            else:
                v = h.masked_fill(fired, p.v_reset)


def _slope(grad_s: Tensor, h: Tensor, p: LIFParameters) -> Tensor:
    """``grad_s`` times the surrogate's slope at ``h``, a new tensor."""
    params = p.surrogate._sg_params
    if type(p.surrogate) is sj_surrogate.Sigmoid:  # one pass where spikingjelly takes five
        y = (h - p.v_threshold).mul_(params["alpha"]).sigmoid_()
        return torch.ops.aten.sigmoid_backward(grad_s, y).mul_(params["alpha"])
    return p.surrogate.backward(grad_s, h - p.v_threshold, **params)
