"""LIF in plain torch with a backward pass by hand: any device, no compiler.

Autograd through the reference keeps half a dozen tensors per step; this keeps the input alone and
computes the potentials again in the backward pass. On a CPU, both passes go through the tensor in
blocks that stay in the cache over all their operations and time steps: memory is passed over once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from spikingjelly.activation_based import surrogate as sj_surrogate
from torch import Tensor

from mmspike.neurons.functional import lif_charge
from mmspike.neurons.kernels.common import LIFFunction, LIFParameters

SURROGATES = frozenset(
    getattr(sj_surrogate, name)
    for name in ("Sigmoid", "ATan", "Erf", "PiecewiseQuadratic", "Rect", "SoftSign", "SuperSpike")
)
"""Surrogates with a threshold in the forward pass and a slope that is a function of its input."""

BLOCK = 65536
"""Elements of a step, per thread, in a block; torch gives a thread no less than half of that."""


def supports(surrogate: Any) -> bool:
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
    return LIFFunction.apply(x_seq, LIFParameters(**parameters), forward, backward)


def forward(x: Tensor, s: Tensor, p: LIFParameters) -> None:
    """Write the spikes of ``x`` into ``s``; both ``[T, N]``."""
    limit = smallest_firing_input(p) if len(x) == 1 else None
    if limit is not None and _holds(limit, x.dtype):
        torch.ge(x, limit, out=s)
        return
    potentials = _negated_potentials if _is_common(p) else _potentials
    for block in _blocks(x):
        for _ in potentials(x[:, block], p, s[:, block]):
            pass


def backward(x: Tensor, grad_s: Tensor, grad_x: Tensor, p: LIFParameters) -> None:
    """Write the gradient of ``x`` into ``grad_x``; all ``[T, N]``."""
    for block in _blocks(x):
        _backward_block(x[:, block], grad_s[:, block], grad_x[:, block], p)


def _backward_block(
    x_seq: Tensor, grad_s_seq: Tensor, grad_x_seq: Tensor, p: LIFParameters
) -> None:
    """Write the gradient of ``x_seq`` into ``grad_x_seq``; all ``[T, N]``."""
    if _is_common(p) and (p.detach_reset or len(x_seq) == 1):
        _backward_block_common(x_seq, grad_s_seq, grad_x_seq, p)
        return
    keep = 1 - 1 / p.tau  # dh[t] / dv[t - 1]
    gain = 1 / p.tau if p.decay_input else 1.0  # dh[t] / dx[t]
    steps = list(_potentials(x_seq, p))
    grad_v = None  # with respect to the potential after the step
    for t in reversed(range(len(steps))):
        h, fired = steps.pop()
        grad_s = grad_s_seq[t].to(h.dtype)
        if grad_v is not None and not p.detach_reset:
            grad_s = grad_s - grad_v * (p.v_threshold if p.v_reset is None else h - p.v_reset)
        grad_h = p.surrogate.backward(grad_s, h - p.v_threshold, **p.surrogate._sg_params)
        if grad_v is not None:
            if p.v_reset is not None:
                grad_v = grad_v.addcmul_(grad_v, fired, value=-1)
            grad_h = grad_h.add_(grad_v)
        torch.mul(grad_h, gain, out=grad_x_seq[t])
        if t:
            grad_v = grad_h.mul_(keep)


def _potentials(
    x_seq: Tensor, p: LIFParameters, s_seq: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Charged potential and spikes (0 or 1, in its type), step by step, rounded as the reference.

    The spikes are written into ``s_seq`` if it is given; else those of the last step are ``None``.
    """
    half = x_seq.dtype in (torch.float16, torch.bfloat16)
    v = None
    for t, x in enumerate(x_seq.unbind()):
        h = lif_charge(x.float() if half else x, v, p.tau, p.v_reset, p.decay_input)
        last, fired = t + 1 == len(x_seq), None
        if s_seq is not None:
            fired = torch.ge(h, p.v_threshold, out=s_seq[t])
        elif not last:
            fired = torch.ge(h, p.v_threshold, out=torch.empty_like(h))
        if fired is not None and half and not last:
            fired = fired.float()
        yield h, fired
        if not last:
            v = _reset(h, fired, p)


def _reset(h: Tensor, fired: Tensor, p: LIFParameters) -> Tensor:
    """As ``lif_reset``: the products with 0 and 1 do not round."""
    if p.v_reset is None:
        return torch.add(h, fired, alpha=-p.v_threshold)
    v = torch.addcmul(h, h, fired, value=-1)
    return v.add_(fired, alpha=p.v_reset) if p.v_reset else v


# The published neuron in fewer passes. Potentials are negated: what is kept of them (and of their
# gradients) then lies above a threshold, for which torch has an operation.


def _is_common(p: LIFParameters) -> bool:
    """Whether the neuron decays its input by a power of two (exact), and is reset to 0."""
    exact = p.decay_input and math.frexp(p.tau)[0] == 0.5
    return exact and p.v_reset == 0.0 and type(p.surrogate) is sj_surrogate.Sigmoid


def _negated_potentials(
    x_seq: Tensor, p: LIFParameters, s_seq: Tensor | None = None
) -> Iterator[Tensor]:
    """Charged potentials times -1, rounded as the reference; spikes go into ``s_seq`` if given."""
    half = x_seq.dtype in (torch.float16, torch.bfloat16)
    v = None
    for t, x in enumerate(x_seq.unbind()):
        x = x.float() if half else x
        h = x * (-1 / p.tau) if v is None else torch.add(v, x + v, alpha=-1 / p.tau)
        if s_seq is not None:
            torch.le(h, -p.v_threshold, out=s_seq[t])
        yield h
        if t + 1 < len(x_seq):
            v = torch.threshold(h, -p.v_threshold, 0.0)


def _backward_block_common(
    x_seq: Tensor, grad_s_seq: Tensor, grad_x_seq: Tensor, p: LIFParameters
) -> None:
    alpha = p.surrogate._sg_params["alpha"]
    steps = list(_negated_potentials(x_seq, p))
    centre = steps[0].new_tensor(-alpha * p.v_threshold)
    grad_h = None  # divided by alpha
    for t in reversed(range(len(steps))):
        h = steps.pop()
        y = torch.add(centre, h, alpha=-alpha).sigmoid_()
        slope = torch.ops.aten.sigmoid_backward(grad_s_seq[t].to(h.dtype), y)
        if grad_h is not None:
            kept = torch.ops.aten.threshold_backward(grad_h, h, -p.v_threshold)
            slope.add_(kept, alpha=1 - 1 / p.tau)
        grad_h = slope
        torch.mul(grad_h, alpha / p.tau, out=grad_x_seq[t])


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


def _blocks(x: Tensor) -> Iterator[slice]:
    """Slices of ``[T, N]`` that stay in the cache; on other devices than a CPU, all of it."""
    width = BLOCK * torch.get_num_threads() if x.device.type == "cpu" else x.size(1)
    for start in range(0, x.size(1), max(width, 1)):
        yield slice(start, start + width)
