"""Triton kernels of a LIF alone, over rows of memory."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl

from mmspike.neurons.kernels.common import LIFParameters
from mmspike.neurons.kernels.triton_functions import (
    charge,
    constants,
    fires,
    reset,
    slope,
    slope_constants,
)
from mmspike.neurons.kernels.triton_launch import Launch

ELEMENTS = 1024
"""Neurons of a program; fewer where the backward pass keeps more than four potentials of each."""


@triton.jit
def forward(
    x, spikes,
    x_step, s_step, size,
    TIME_STEPS: tl.constexpr,
    TAU: tl.constexpr, EXACT: tl.constexpr, THRESHOLD: tl.constexpr, REST: tl.constexpr,
    SOFT: tl.constexpr, DECAY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the spikes of ``x``, ``[T, size]``."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    v = tl.zeros([BLOCK], tl.float32)
    for t in tl.static_range(TIME_STEPS):
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        h = charge(value, v, t == 0, TAU, EXACT, REST, DECAY)
        fired = fires(h, THRESHOLD)
        v = reset(h, fired, THRESHOLD, REST, SOFT)
        tl.store(spikes + at, fired.to(tl.float32).to(spikes.dtype.element_ty), mask=mask)
        x += x_step
        spikes += s_step


@triton.jit
def backward(
    x, grad_s, grad_x,
    x_step, s_step, g_step, size,
    TIME_STEPS: tl.constexpr,
    TAU: tl.constexpr, EXACT: tl.constexpr, THRESHOLD: tl.constexpr, REST: tl.constexpr,
    SOFT: tl.constexpr, DECAY: tl.constexpr,
    SURROGATE: tl.constexpr, ALPHA: tl.constexpr, DETACH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradient of ``x``, from that of the spikes."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    hs = ()
    v = tl.zeros([BLOCK], tl.float32)
    for t in tl.static_range(TIME_STEPS):
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        h = charge(value, v, t == 0, TAU, EXACT, REST, DECAY)
        v = reset(h, fires(h, THRESHOLD), THRESHOLD, REST, SOFT)
        hs = hs + (h,)
        x += x_step
        grad_s += s_step
        grad_x += g_step
    carry = tl.zeros([BLOCK], tl.float32)  # of the potential after the step
    for i in tl.static_range(TIME_STEPS):
        h = hs[TIME_STEPS - 1 - i]
        grad_s -= s_step
        grad_x -= g_step
        g = tl.load(grad_s + at, mask=mask, other=0.0).to(tl.float32)
        if i > 0 and not DETACH:
            g -= carry * (THRESHOLD if SOFT else h - REST)
        g *= slope(h - THRESHOLD, SURROGATE, ALPHA)
        if i > 0:
            g += carry if SOFT else tl.where(fires(h, THRESHOLD), 0.0, carry)
        carry = g * (1.0 - 1.0 / TAU)
        if DECAY:
            g = g * (1.0 / TAU)
        tl.store(grad_x + at, g.to(grad_x.dtype.element_ty), mask=mask)


def launch(name: str, p: LIFParameters, shape: Sequence[int], strides: Sequence[int]) -> Launch:
    """A kernel for matrices ``[T, N]`` of some type and device.

    Args:
        name: ``"forward"`` or ``"backward"``.
        p: The neuron's parameters.
        shape: Of all matrices.
        strides: Elements from a step to the next, of each.
    """
    steps, size = shape
    given = {"TIME_STEPS": steps, **constants(p)}
    if name == "forward":
        block, kernel = ELEMENTS, forward
    else:
        block, kernel = ELEMENTS // (1 if steps <= 4 else 2 if steps <= 8 else 4), backward
        given |= slope_constants(p)
    given["BLOCK"] = block
    return Launch(kernel, (triton.cdiv(size, block),), (*strides, size), given)
