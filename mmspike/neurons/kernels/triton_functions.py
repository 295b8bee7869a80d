"""The neuron's equations as functions of Triton kernels, rounded as the reference on a CPU."""

from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

from mmspike.neurons.kernels.common import IntegerParameters, LIFParameters


def constants(p: LIFParameters) -> dict[str, Any]:
    """What the kernels of both passes are compiled with."""
    return {
        "TAU": float(p.tau),
        "EXACT": math.frexp(p.tau)[0] == 0.5,  # a power of two: a product does not round
        "THRESHOLD": float(p.v_threshold),
        "REST": float(p.v_reset or 0.0),
        "SOFT": p.v_reset is None,
        "DECAY": bool(p.decay_input),
    }


def step_constants(p: LIFParameters | IntegerParameters) -> dict[str, Any]:
    """What kernels that call :func:`step` are compiled with: a LIF, or a neuron of ``LEVELS``."""
    if isinstance(p, LIFParameters):
        keep = 1.0 - 1.0 / p.tau
        return {**constants(p), "LEVELS": 0, "NORMALIZE": False, "KEEP": keep}
    soft = {"TAU": 1.0, "EXACT": True, "THRESHOLD": 1.0, "REST": 0.0, "SOFT": True, "DECAY": False}
    return {**soft, "LEVELS": p.levels, "NORMALIZE": p.normalize, "KEEP": float(p.beta)}


def slope_constants(p: LIFParameters | IntegerParameters) -> dict[str, Any]:
    """What those of the backward pass are compiled with besides."""
    if isinstance(p, IntegerParameters):
        return {"SURROGATE": "", "ALPHA": 1.0, "DETACH": bool(p.detach_reset)}
    return {
        "SURROGATE": type(p.surrogate).__name__,
        "ALPHA": float(p.surrogate.alpha),
        "DETACH": bool(p.detach_reset),
    }


@triton.jit
def charge(
    x, v, FIRST: tl.constexpr, TAU: tl.constexpr, EXACT: tl.constexpr, REST: tl.constexpr,
    DECAY: tl.constexpr,
):  # fmt: skip
    """The charged potential, rounded as the reference on a CPU."""
    if FIRST:
        h = _over_tau(x, TAU, EXACT) if DECAY else x
        if REST != 0.0:
            h = h + REST
    elif DECAY:
        h = v + _over_tau(x - (v - REST), TAU, EXACT)
    else:
        h = v - _over_tau(v - REST, TAU, EXACT) + x
    return h


@triton.jit
def _over_tau(x, TAU: tl.constexpr, EXACT: tl.constexpr):
    if EXACT:
        y = x * (1.0 / TAU)
    else:
        y = tl.div_rn(x, tl.full(x.shape, TAU, tl.float32))
    return y


@triton.jit
def fires(h, THRESHOLD: tl.constexpr):
    """Whether a neuron fires at a charged potential."""
    return h - THRESHOLD >= 0.0


@triton.jit
def reset(h, fired, THRESHOLD: tl.constexpr, REST: tl.constexpr, SOFT: tl.constexpr):
    """The potential after the step."""
    if SOFT:
        v = tl.where(fired, h - THRESHOLD, h)
    else:
        v = tl.where(fired, REST, h)
    return v


@triton.jit
def slope(u, SURROGATE: tl.constexpr, ALPHA: tl.constexpr):
    """The surrogate's slope, ``u`` above the threshold; spikingjelly's class of that name."""
    if SURROGATE == "Sigmoid":
        y = 1.0 / (1.0 + tl.exp(u * -ALPHA))
        s = (1.0 - y) * y * ALPHA
    elif SURROGATE == "ATan":
        y = u * (1.5707963267948966 * ALPHA)
        s = (ALPHA / 2) / (1.0 + y * y)
    elif SURROGATE == "Erf":
        y = u * ALPHA
        s = tl.exp(-(y * y)) * (ALPHA * 0.5641895835477563)
    elif SURROGATE == "PiecewiseQuadratic":
        s = tl.where(tl.abs(u) > 1.0 / ALPHA, 0.0, ALPHA - ALPHA * ALPHA * tl.abs(u))
    elif SURROGATE == "Rect":
        s = tl.where(tl.abs(u) < 0.5 / ALPHA, ALPHA, 0.0)
    elif SURROGATE == "SoftSign":
        y = 1.0 / ALPHA + tl.abs(u)
        s = 1.0 / (2.0 * ALPHA * (y * y))
    else:  # SuperSpike
        y = tl.abs(u) + 1.0
        s = ALPHA / (y * y)
    return s


@triton.jit
def step(
    x, v, FIRST: tl.constexpr,
    TAU: tl.constexpr, EXACT: tl.constexpr, THRESHOLD: tl.constexpr, REST: tl.constexpr,
    SOFT: tl.constexpr, DECAY: tl.constexpr, LEVELS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Charge, fire and reset; of a LIF, or with ``LEVELS`` of an integer LIF.

    Returns:
        The charged potential, the number of spikes, and what the next step starts from.
    """
    if LEVELS > 0:
        h = x if FIRST else v + x
        n = _round(tl.minimum(tl.maximum(h, 0.0), LEVELS))
        v = (h - n) * KEEP
    else:
        h = charge(x, v, FIRST, TAU, EXACT, REST, DECAY)
        fired = fires(h, THRESHOLD)
        v = reset(h, fired, THRESHOLD, REST, SOFT)
        n = fired.to(tl.float32)
    return h, n, v


@triton.jit
def _round(x):
    """The nearest whole number, of two the even one, of numbers far below 2**22."""
    return (x + 12582912.0) - 12582912.0  # 1.5 * 2**23: there, floats are whole numbers


@triton.jit
def output(n, LEVELS: tl.constexpr, NORMALIZE: tl.constexpr):
    """What a neuron gives for a number of spikes."""
    if NORMALIZE:
        y = tl.div_rn(n, tl.full(n.shape, LEVELS, tl.float32))
    else:
        y = n
    return y


@triton.jit
def output_slope(
    g, h, THRESHOLD: tl.constexpr, SURROGATE: tl.constexpr, ALPHA: tl.constexpr,
    LEVELS: tl.constexpr,
):  # fmt: skip
    """``g`` times the slope of the number of spikes at a charged potential."""
    if LEVELS > 0:
        y = tl.where((h >= 0.0) & (h <= LEVELS), g, 0.0)
    else:
        y = g * slope(h - THRESHOLD, SURROGATE, ALPHA)
    return y
