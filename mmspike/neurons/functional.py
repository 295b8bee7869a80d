"""The reference dynamics of neurons, as pure functions of input and state in plain torch.

Every faster implementation is tested against these, forward and gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Surrogate = Callable[[Tensor], Tensor]


def lif_charge(
    x: Tensor, v: Tensor | None, tau: float, v_reset: float | None, decay_input: bool
) -> Tensor:
    r"""Charge a leaky integrate-and-fire neuron by one step of input.

    .. math::
        h_t = v_{t-1} + (x_t - (v_{t-1} - v_\mathrm{reset})) / \tau
            \quad\text{if decay\_input, else}\quad
        h_t = v_{t-1} - (v_{t-1} - v_\mathrm{reset}) / \tau + x_t

    Source: Wu et al. 2018 (arXiv 1706.02609), section 2.2, discretised with a step of 1.

    Args:
        x: Input of this step, any shape.
        v: Membrane potential before the step, shaped like ``x``; ``None`` means at rest.
        tau: Time constant in time steps.
        v_reset: Resting potential; ``None`` (a soft reset) rests at 0.
        decay_input: Whether the input is divided by ``tau`` too.

    Returns:
        The charged potential, shaped like ``x``.
    """
    rest = v_reset or 0.0
    if v is None:
        charge = x / tau if decay_input else x
        return charge + rest if rest else charge
    if decay_input:
        return v + (x - (v - rest)) / tau
    return v - (v - rest) / tau + x


def lif_reset(
    h: Tensor, s: Tensor, v_threshold: float, v_reset: float | None, detach_reset: bool
) -> Tensor:
    """Reset the potential where the neuron fired.

    Args:
        h: Charged potential.
        s: Spikes of 0 and 1, shaped like ``h``.
        v_threshold: What a soft reset subtracts.
        v_reset: What a hard reset sets; ``None`` asks for a soft reset.
        detach_reset: Whether the spikes that reset are cut from the graph.

    Returns:
        The potential that the next step starts from, shaped like ``h``.
    """
    if detach_reset:
        s = s.detach()
    if v_reset is None:
        return h - s * v_threshold
    return (1.0 - s) * h + s * v_reset


def lif_multi_step(
    x_seq: Tensor,
    *,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    decay_input: bool = True,
    surrogate: Surrogate,
    detach_reset: bool = True,
) -> Tensor:
    """Charge, fire and reset at every step of a sequence, from rest.

    The potential is kept in float32 whatever the type of the input, so that mixed precision does
    not move a threshold.

    Args:
        x_seq: Input, ``[T, ...]``.
        tau: Time constant in time steps.
        v_threshold: Potential at which the neuron fires (it does when it is reached).
        v_reset: Potential after a spike; ``None`` subtracts the threshold instead.
        decay_input: Whether the input is divided by ``tau`` too.
        surrogate: Heaviside step whose backward is a surrogate gradient.
        detach_reset: Whether the reset is cut from the graph.

    Returns:
        Spikes of 0 and 1, shaped and typed like ``x_seq``.
    """
    half = x_seq.dtype in (torch.float16, torch.bfloat16)
    h = v = None
    spikes: list[Tensor] = []
    for x in x_seq.float() if half else x_seq:
        if h is not None:
            v = lif_reset(h, spikes[-1], v_threshold, v_reset, detach_reset)
        h = lif_charge(x, v, tau, v_reset, decay_input)
        spikes.append(surrogate(h - v_threshold))
    s_seq = torch.stack(spikes) if len(spikes) > 1 else spikes[0].unsqueeze(0)
    return s_seq.to(x_seq.dtype)


def integer_lif_multi_step(
    x_seq: Tensor, levels: int, beta: float, normalize: bool, detach_reset: bool
) -> Tensor:
    r"""Charge, fire an integer and subtract it, at every step of a sequence, from rest.

    .. math::
        u_t = h_{t-1} + x_t, \quad n_t = \mathrm{round}(\mathrm{clip}(u_t, 0, D)), \quad
        h_t = \beta (u_t - n_t)

    Ties are rounded to the nearest even integer. The gradient of :math:`n` by :math:`u` is 1 from 0
    to D, both included, and 0 outside. The potential is kept in float32 (or float64) whatever the
    type of the input.

    Source: "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation Training"
    (arXiv 2411.16061), section 3; "SpikeYOLO" (arXiv 2407.20708), section 3.3, where it is I-LIF.

    Args:
        x_seq: Input, ``[T, ...]``.
        levels: D, the largest integer.
        beta: What is left of a potential after a step.
        normalize: Whether n / D is given instead of n.
        detach_reset: Whether the integer that is subtracted is cut from the graph.

    Returns:
        n or n / D, shaped and typed like ``x_seq``.
    """
    outputs = []
    h: Tensor | None = None
    for x in x_seq.to(torch.promote_types(x_seq.dtype, torch.float32)):
        u = x if h is None else h + x
        clipped = u.clamp(0, levels)
        n = clipped + (clipped.round() - clipped).detach()  # exact: a number and a near one
        h = beta * (u - (n.detach() if detach_reset else n))
        outputs.append(n / levels if normalize else n)
    return torch.stack(outputs).to(x_seq.dtype)
