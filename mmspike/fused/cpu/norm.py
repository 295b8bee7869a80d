"""Batch norms on the CPU, with a backward pass in two passes over memory.

The forward pass is torch's, whose backward pass, of maps with the channels last, is slower than
memory. ``spikes.py`` fuses a norm with the neuron after it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from mmspike.fused.cpu.reasons import why_not_input, why_not_normalise
from mmspike.native import norm as kernels


def normalise(norm: nn.Module, y: Tensor) -> Tensor:
    """Call a norm: ``norm(y)``.

    Args:
        norm: The norm.
        y: ``[N, C, H, W]``, or whatever else the norm takes.

    Returns:
        As ``y``.
    """
    if not (
        torch.is_grad_enabled()
        and norm.training
        and y.dim() == 4
        and why_not_normalise(norm, y) is None
        and why_not_input(y) is None
        and y.is_contiguous(memory_format=torch.channels_last)
    ):
        return norm(y)
    running = (norm.running_mean, norm.running_var)
    return _Norm.apply(y, norm.weight, norm.bias, *running, _momentum(norm), norm.eps)


@torch.no_grad()
def statistics(norm: nn.BatchNorm2d, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance that the norm uses; in training those of the batch, which it learns."""
    if not norm.training:
        return norm.running_mean, norm.running_var
    return torch.batch_norm_update_stats(y, norm.running_mean, norm.running_var, _momentum(norm))


def _momentum(norm: nn.BatchNorm2d) -> float:
    """Count this batch, and say how much of it the running statistics take."""
    norm.num_batches_tracked.add_(1)
    return 1.0 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum


def norm_gradients(
    grad: Tensor,
    y: Tensor,
    mean: Tensor,
    scale: Tensor,
    inv_std: Tensor,
    sums: Tensor,
    batch: bool,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a norm's input, weight and bias.

    Args:
        grad: Gradient of the norm's output, with the channels last in memory.
        y: The norm's input, laid out alike.
        mean: Mean that the norm used, ``[C]``.
        scale: The norm's weight times ``inv_std``, ``[C]``.
        inv_std: One over the standard deviation that the norm used, ``[C]``.
        sums: ``[2, C]``, those of :func:`mmspike.native.norm.sums`.
        batch: Whether mean and deviation are those of ``y``, and so depend on it.
        out: Where the gradient of the input is written; may be ``grad``.
    """
    first, second = sums
    b = c = torch.zeros_like(scale)
    if batch:
        share = -scale.double() * scale.numel() / y.numel()  # in float32, products may overflow
        b, c = (share * inv_std.double() ** 2 * second).float(), (share * first).float()
    kernels.backward(grad, y, out, mean, scale, b, c)
    return out, (second * inv_std).float(), first.float()


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        out, mean, inv_std = torch.native_batch_norm(
            y, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(y, weight, mean, inv_std)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple:
        y, weight, mean, inv_std = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: torch's own has one
            grads = torch.ops.aten.native_batch_norm_backward(
                grad, y, weight, None, None, mean, inv_std, True, ctx.eps, [True] * 3
            )
            return *grads, *(None,) * 4
        y = y.contiguous(memory_format=torch.channels_last)  # hooks may have kept it otherwise
        grad = grad.contiguous(memory_format=torch.channels_last)
        sums = kernels.sums(grad, y, mean)
        out = torch.empty_like(y)
        grads = norm_gradients(grad, y, mean, weight * inv_std, inv_std, sums, True, out)
        return *grads, *(None,) * 4
