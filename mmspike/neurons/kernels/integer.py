"""Integer LIF in plain torch with a backward pass by hand, on any device.

All that is kept for the backward pass is where the potential lay within the window of the
gradient: a byte for an element, a quarter of the input in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.neurons import functional
from mmspike.neurons.kernels.common import dense_per_step, empty_like_steps


def integer_lif_multi_step(
    x_seq: Tensor, levels: int, beta: float, normalize: bool, detach_reset: bool
) -> Tensor:
    """See :func:`mmspike.neurons.functional.integer_lif_multi_step`: the same to the bit.

    While a graph is compiled, the reference runs, which the compiler fuses.
    """
    if torch.compiler.is_compiling():
        return functional.integer_lif_multi_step(x_seq, levels, beta, normalize, detach_reset)
    x_seq = dense_per_step(x_seq)
    if torch.is_grad_enabled() and x_seq.requires_grad:
        return _IntegerLIF.apply(x_seq, levels, beta, normalize, detach_reset)
    return _forward(x_seq, levels, beta, normalize)


def _forward(
    x_seq: Tensor,
    levels: int,
    beta: float,
    normalize: bool,
    inside: Tensor | None = None,
) -> Tensor:
    """Fire; and write into ``inside`` where the potential was within the window."""
    out = empty_like_steps(x_seq)
    compute = torch.promote_types(x_seq.dtype, torch.float32)
    h: Tensor | None = None
    for t, x in enumerate(x_seq.to(compute)):
        u = x if h is None else h.add_(x)
        n = torch.clamp(u, 0, levels, out=out[t] if out.dtype == compute else None)
        if inside is not None:
            torch.eq(n, u, out=inside[t])
        n.round_()
        if t + 1 < len(x_seq):
            h = torch.sub(u, n).mul_(beta)
        if normalize:
            n.div_(levels)
        if out.dtype != compute:
            out[t].copy_(n)
    return out


class _IntegerLIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_seq: Tensor,
        levels: int,
        beta: float,
        normalize: bool,
        detach_reset: bool,
    ) -> Tensor:
        inside = empty_like_steps(x_seq, torch.bool)
        out = _forward(x_seq, levels, beta, normalize, inside=inside)
        ctx.save_for_backward(inside)
        ctx.beta, ctx.detach_reset = beta, detach_reset
        ctx.unit = levels if normalize else None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_seq: Tensor) -> tuple[Tensor, None, None, None, None]:
        (inside,) = ctx.saved_tensors
        grad_x_seq = empty_like_steps(inside, grad_seq.dtype)
        later: Tensor | None = None  # gradient of the potential after this step
        for t in reversed(range(len(grad_seq))):
            g = grad_seq[t].to(torch.promote_types(grad_seq.dtype, torch.float32))
            g = g / ctx.unit if ctx.unit else g
            if later is not None and not ctx.detach_reset:
                g = g - later
            g = g * inside[t]
            if later is not None:
                g = g + later
            grad_x_seq[t].copy_(g)
            later = g.mul_(ctx.beta)
        return grad_x_seq, None, None, None, None
