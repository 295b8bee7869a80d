"""Kernels of the forward pass: normalise, charge, fire, reset; and spikes from bits."""

from __future__ import annotations

import triton
import triton.language as tl

from mmspike.fused.cuda.tiles import SIZES, channels_of, tile
from mmspike.neurons.kernels.triton_functions import output
from mmspike.neurons.kernels.triton_functions import step as neuron_step


@triton.jit
def normalised(y, scale, shift, NORM: tl.constexpr, ROUNDED: tl.constexpr, DATA: tl.constexpr):
    """What the neuron reads: ``NORM`` 0 nothing done, 1 a bias added, 2 a norm applied."""
    if NORM == 0:
        x = y
    elif NORM == 1:
        x = y + shift[None, :]
    else:
        x = y * scale[None, :] + shift[None, :]
    if NORM > 0 and ROUNDED:  # as a norm that gives its output in the type of its input
        x = x.to(DATA).to(tl.float32)
    return x


@triton.jit(do_not_specialize=SIZES)
def fire(
    y, spikes, bits, scale, shift,
    units, chunks, inner, outer, per_image,
    TIME_STEPS: tl.constexpr, NORM: tl.constexpr, ROUNDED: tl.constexpr,
    SPIKES: tl.constexpr, BITS: tl.constexpr,
    TAU: tl.constexpr, EXACT: tl.constexpr, THRESHOLD: tl.constexpr, REST: tl.constexpr,
    SOFT: tl.constexpr, DECAY: tl.constexpr,
    LEVELS: tl.constexpr, NORMALIZE: tl.constexpr, KEEP: tl.constexpr,
    LAST: tl.constexpr, VEC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write spikes, the last tiles first, which the pass before has left in the cache."""
    step = units.to(tl.int64) * VEC
    channels = channels_of(inner, outer, LAST, VEC)
    chunk, channel_tile = chunks - 1 - tl.program_id(0), tl.program_id(1)
    first, offsets, c, has_p, has_c = tile(
        chunk, channel_tile, chunks, inner, outer, per_image, LAST, VEC, BLOCK_P, BLOCK_C
    )
    mask = has_p[:, None] & has_c[None, :]
    scales = tl.zeros([BLOCK_C], tl.float32)
    shifts = tl.zeros([BLOCK_C], tl.float32)
    if NORM == 2:
        scales = tl.load(scale + c, mask=has_c, other=0.0).to(tl.float32)
    if NORM > 0:
        shifts = tl.load(shift + c, mask=has_c, other=0.0).to(tl.float32)
    y += first
    v = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for t in tl.static_range(TIME_STEPS):
        value = tl.load(y + offsets, mask=mask, other=0.0).to(tl.float32)
        x = normalised(value, scales, shifts, NORM, ROUNDED, y.dtype.element_ty)
        _, n, v = neuron_step(x, v, t == 0, TAU, EXACT, THRESHOLD, REST, SOFT, DECAY, LEVELS, KEEP)
        if SPIKES:
            to = spikes + first + offsets
            value = output(n, LEVELS, NORMALIZE)
            tl.store(to, value.to(spikes.dtype.element_ty), mask=mask)
            spikes += step
        if BITS and LEVELS > 0:  # a byte for each number
            tl.store(bits + first + offsets, n.to(tl.uint8), mask=mask)
            bits += step
        elif BITS:  # eight channels a byte, the first the lowest
            eights = tl.reshape(n.to(tl.int32), [BLOCK_P, BLOCK_C // 8, 8])
            packed = tl.sum(eights << tl.arange(0, 8)[None, None, :], 2)
            at_c = channel_tile * (BLOCK_C // 8) + tl.arange(0, BLOCK_C // 8)
            at = tl.arange(0, BLOCK_P)[:, None] * (channels // 8) + at_c[None, :]
            there = has_p[:, None] & (at_c < channels // 8)[None, :]
            tl.store(bits + first // 8 + at, packed.to(tl.uint8), mask=there)
            bits += step // 8
        y += step


@triton.jit
def unpack(bits, spikes, size, BLOCK: tl.constexpr):
    """Spikes from bits, ``size`` bytes of them; the first spike is the lowest bit."""
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    eighth = tl.arange(0, 8)
    packed = tl.load(bits + byte, mask=byte < size, other=0).to(tl.int32)
    fired = (packed[:, None] >> eighth[None, :]) & 1
    to = spikes + byte[:, None] * 8 + eighth[None, :]
    there = (byte < size)[:, None] & (eighth >= 0)[None, :]
    tl.store(to, fired.to(tl.float32).to(spikes.dtype.element_ty), mask=there)
