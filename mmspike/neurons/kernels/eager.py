"""LIF in plain torch with a backward pass by hand: any device, no compiler.

Autograd through the reference keeps half a dozen tensors per step; this keeps the input alone and
computes the potentials again in the backward pass. On a CPU, both passes go through the tensor in
blocks that stay in the cache over all their operations and time steps: memory is passed over once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
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

BLOCK = 32768
"""Elements per thread in a block; torch gives a thread no less."""


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
        Spikes of 0 and 1, shaped and typed like ``x_seq``, each step laid out in memory as its.
    """
    return _LIF.apply(x_seq, LIFParameters(**parameters))


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_seq: Tensor, p: LIFParameters) -> Tensor:
        if not _is_dense_per_step(x_seq):
            x_seq = x_seq.contiguous()
        ctx.save_for_backward(x_seq)
        ctx.p = p
        s_seq = _empty_like_steps(x_seq)
        x, s = _rows(x_seq), _rows(s_seq)
        limit = smallest_firing_input(p) if len(x) == 1 else None
        if limit is not None and _holds(limit, x.dtype):
            torch.ge(x, limit, out=s)
            return s_seq
        for block in _blocks(x):
            for _ in _potentials(x[:, block], p, s[:, block]):
                pass
        return s_seq

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s_seq: Tensor) -> tuple[Tensor, None]:
        (x_seq,), p = ctx.saved_tensors, ctx.p
        if grad_s_seq.stride()[1:] != x_seq.stride()[1:] or not _is_dense_per_step(grad_s_seq):
            grad_s_seq = _empty_like_steps(x_seq).copy_(grad_s_seq)
        grad_x_seq = _empty_like_steps(x_seq)
        x, grad_s, grad_x = _rows(x_seq), _rows(grad_s_seq), _rows(grad_x_seq)
        for block in _blocks(x):
            _backward_block(x[:, block], grad_s[:, block], grad_x[:, block], p)
        return grad_x_seq, None


def _backward_block(
    x_seq: Tensor, grad_s_seq: Tensor, grad_x_seq: Tensor, p: LIFParameters
) -> None:
    """Write the gradient of ``x_seq`` into ``grad_x_seq``; all ``[T, N]``."""
    keep = 1 - 1 / p.tau  # dh[t] / dv[t - 1]
    gain = 1 / p.tau if p.decay_input else 1.0  # dh[t] / dx[t]
    steps = list(_potentials(x_seq, p))
    grad_v = None  # with respect to the potential after the step
    for t in reversed(range(len(steps))):
        h, fired = steps.pop()
        grad_s = grad_s_seq[t].to(h.dtype)
        if grad_v is not None and not p.detach_reset:
            grad_s = grad_s - grad_v * (p.v_threshold if p.v_reset is None else h - p.v_reset)
        grad_h, factor = _slope(grad_s, h, p)
        if grad_v is not None:
            if p.v_reset is not None:
                grad_v = grad_v.addcmul_(grad_v, fired, value=-1)
            grad_h, factor = torch.add(grad_v, grad_h, alpha=factor, out=grad_h), 1.0
        torch.mul(grad_h, factor * gain, out=grad_x_seq[t])
        if t:
            grad_v = grad_h.mul_(factor * keep)


def _potentials(
    x_seq: Tensor, p: LIFParameters, s_seq: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Charged potential and spikes (0 or 1, in its type), step by step, rounded as the reference.

    The spikes are written into ``s_seq`` if it is given; else those of the last step are ``None``.
    """
    half = x_seq.dtype in (torch.float16, torch.bfloat16)
    v = None
    for t, x in enumerate(x_seq.unbind()):
        h = _charge(x.float() if half else x, v, p)
        last, fired = t + 1 == len(x_seq), None
        if s_seq is not None:
            fired = torch.ge(h, p.v_threshold, out=s_seq[t])
        elif not last:
            fired = torch.ge(h, p.v_threshold, out=torch.empty_like(h))
        if half and not last:
            fired = fired.float()
        yield h, fired
        if not last:
            v = _reset(h, fired, p)


def _charge(x: Tensor, v: Tensor | None, p: LIFParameters) -> Tensor:
    """As ``lif_charge``, in fewer passes where that gives the same numbers."""
    exact = p.decay_input and math.frexp(p.tau)[0] == 0.5  # a power of two: no rounding
    if not exact or p.v_reset:
        return lif_charge(x, v, p.tau, p.v_reset, p.decay_input)
    return x * (1 / p.tau) if v is None else torch.add(v, x - v, alpha=1 / p.tau)


def _reset(h: Tensor, fired: Tensor, p: LIFParameters) -> Tensor:
    """As ``lif_reset``: the products with 0 and 1 do not round."""
    if p.v_reset is None:
        return torch.add(h, fired, alpha=-p.v_threshold)
    v = torch.addcmul(h, h, fired, value=-1)
    return v.add_(fired, alpha=p.v_reset) if p.v_reset else v


def _slope(grad_s: Tensor, h: Tensor, p: LIFParameters) -> tuple[Tensor, float]:
    """``grad_s`` times the surrogate's slope at ``h``, as a new tensor and a factor to it."""
    params = p.surrogate._sg_params
    if type(p.surrogate) is sj_surrogate.Sigmoid:  # one pass where spikingjelly takes five
        alpha = params["alpha"]
        y = torch.add(h.new_tensor(-alpha * p.v_threshold), h, alpha=alpha).sigmoid_()
        return torch.ops.aten.sigmoid_backward(grad_s, y), alpha
    return p.surrogate.backward(grad_s, h - p.v_threshold, **params), 1.0


def smallest_firing_input(p: LIFParameters) -> float | None:
    """The smallest float32 at which a neuron at rest fires, by the reference's rounding.

    Returns:
        The number, so that one comparison is all that the first step takes, or ``None`` if it is
        not found beside the exact quotient.
    """
    return _smallest_firing_input(p.tau, p.v_threshold, p.v_reset, p.decay_input)


@lru_cache
def _smallest_firing_input(
    tau: float, v_threshold: float, v_reset: float | None, decay_input: bool
) -> float | None:
    exact = (v_threshold - (v_reset or 0.0)) * (tau if decay_input else 1.0)
    x = torch.tensor(exact, dtype=torch.float32)
    near = [x]
    for direction in (math.inf, -math.inf):
        at = x
        for _ in range(4):
            at = torch.nextafter(at, torch.tensor(direction))
            near.append(at)
    near = torch.stack(near).sort().values
    fires = lif_charge(near, None, tau, v_reset, decay_input) >= v_threshold
    if fires[0] or not fires[-1]:
        return None
    return near[fires][0].item()


def _holds(number: float, dtype: torch.dtype) -> bool:
    """Whether a comparison with ``number`` in this type is that in float32."""
    if dtype == torch.float64:
        return False
    return torch.tensor(number, dtype=dtype).item() == number


def _is_dense_per_step(x_seq: Tensor) -> bool:
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


def _empty_like_steps(x_seq: Tensor) -> Tensor:
    """An empty tensor whose steps are laid out as those of ``x_seq``, one behind the other."""
    if x_seq.dim() < 2:
        return torch.empty_like(x_seq)
    strides = (x_seq[0].numel(), *x_seq.stride()[1:])
    return x_seq.new_empty(x_seq.numel()).as_strided(x_seq.shape, strides)


def _rows(x_seq: Tensor) -> Tensor:
    """A dense ``x_seq`` as ``[T, N]``, in the order of memory."""
    if x_seq.dim() < 2 or x_seq.numel() == 0:
        return x_seq.reshape(x_seq.size(0), -1)
    return x_seq.as_strided((x_seq.size(0), x_seq[0].numel()), (x_seq.stride(0), 1))


def _blocks(x: Tensor) -> Iterator[slice]:
    """Slices of ``[T, N]`` that stay in the cache; on other devices than a CPU, all of it."""
    width = BLOCK * torch.get_num_threads() if x.device.type == "cpu" else x.size(1)
    for start in range(0, x.size(1), max(width, 1)):
        yield slice(start, start + width)
