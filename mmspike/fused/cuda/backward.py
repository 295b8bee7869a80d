"""Kernels of the backward pass of norm and neuron."""

from __future__ import annotations

import triton
import triton.language as tl

from mmspike.fused.cuda.fire import normalised
from mmspike.fused.cuda.statistics import is_last
from mmspike.fused.cuda.tiles import SIZES, channels_of, tile
from mmspike.neurons.kernels.triton_functions import output_slope
from mmspike.neurons.kernels.triton_functions import step as neuron_step


@triton.jit(do_not_specialize=SIZES)
def backward(
    y, grad_s, grad_y, numbers, slopes, part, grad_weight, grad_bias, counter,
    units, programs, chunks, inner, outer, per_image,
    TIME_STEPS: tl.constexpr, UNROLL: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr,
    NORM: tl.constexpr, ROUNDED: tl.constexpr,
    SUMS: tl.constexpr, WRITE: tl.constexpr, CENTRED: tl.constexpr, MERGE_ONLY: tl.constexpr,
    TAU: tl.constexpr, EXACT: tl.constexpr, THRESHOLD: tl.constexpr, REST: tl.constexpr,
    SOFT: tl.constexpr, DECAY: tl.constexpr,
    LEVELS: tl.constexpr, NORMALIZE: tl.constexpr, KEEP: tl.constexpr,
    SURROGATE: tl.constexpr, ALPHA: tl.constexpr, DETACH: tl.constexpr,
    LAST: tl.constexpr, VEC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sum up over pixels (``SUMS``), write the gradient of ``y`` (``WRITE``), or both.

    With g the gradient of the neuron's input: the sums are those of g and of g (y - mean); the
    gradient is ``scale * g``, and ``+ slopes[0] * (y - mean) + slopes[1]`` if it is ``CENTRED``.
    """
    step = units.to(tl.int64) * VEC
    channels = channels_of(inner, outer, LAST, VEC)
    program, channel_tile = tl.program_id(0), tl.program_id(1)
    c = channel_tile * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    mean = tl.zeros([BLOCK_C], tl.float32)
    scale = mean
    shift = mean
    first_slope = mean
    second_slope = mean
    if NORM == 2:
        mean = tl.load(numbers + channels + c, mask=has_c, other=0.0)
        scale = tl.load(numbers + 4 * channels + c, mask=has_c, other=0.0)
        shift = tl.load(numbers + 5 * channels + c, mask=has_c, other=0.0)
    if CENTRED:
        first_slope = tl.load(slopes + c, mask=has_c, other=0.0)
        second_slope = tl.load(slopes + channels + c, mask=has_c, other=0.0)
    sum_g = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    sum_gy = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for start in range(program, chunks, programs * UNROLL):
        for u in tl.static_range(UNROLL):
            chunk = start + u * programs
            if not SUMS:  # the last tiles first, which the sums have left in the cache
                chunk = chunks - 1 - chunk
            first, offsets, _, has_p, _ = tile(
                chunk, channel_tile, chunks, inner, outer, per_image, LAST, VEC, BLOCK_P, BLOCK_C
            )
            mask = has_p[:, None] & has_c[None, :]
            ys = ()
            hs = ()
            ns = ()
            v = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
            here = first
            for t in tl.static_range(TIME_STEPS):
                value = tl.load(y + here + offsets, mask=mask, other=0.0)
                here += step
                x = normalised(
                    value.to(tl.float32), scale, shift, NORM, ROUNDED, y.dtype.element_ty
                )
                h, n, v = neuron_step(
                    x, v, t == 0, TAU, EXACT, THRESHOLD, REST, SOFT, DECAY, LEVELS, KEEP
                )
                ys = ys + (value,)
                hs = hs + (h,)
                ns = ns + (n,)
            here -= step
            carry = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)  # of the potential after the step
            for i in tl.static_range(TIME_STEPS):
                h = hs[TIME_STEPS - 1 - i]
                at = here + offsets
                here -= step
                g = tl.load(grad_s + at, mask=mask, other=0.0).to(tl.float32)
                if NORMALIZE:
                    g *= 1.0 / LEVELS
                if i > 0 and not DETACH:
                    g -= carry * (THRESHOLD if SOFT else h - REST)
                g = output_slope(g, h, THRESHOLD, SURROGATE, ALPHA, LEVELS)
                if i > 0:
                    g += carry if SOFT else tl.where(ns[TIME_STEPS - 1 - i] > 0.0, 0.0, carry)
                carry = g * KEEP
                if DECAY:
                    g = g * (1.0 / TAU)
                if SUMS or CENTRED:
                    distance = ys[TIME_STEPS - 1 - i].to(tl.float32) - mean[None, :]
                if SUMS:
                    g = tl.where(mask, g, 0.0)
                    sum_g += g
                    sum_gy += g * distance
                if WRITE:
                    if NORM == 2:
                        g = g * scale[None, :]
                    if CENTRED:
                        g += distance * first_slope[None, :] + second_slope[None, :]
                    tl.store(grad_y + at, g.to(grad_y.dtype.element_ty), mask=mask)
    if SUMS:
        to = part + program * 2 * channels + c
        tl.store(to, tl.sum(sum_g, 0), mask=has_c)
        tl.store(to + channels, tl.sum(sum_gy, 0), mask=has_c)
        group, groups = program // GROUP, tl.cdiv(programs, GROUP)
        members = tl.minimum(programs - group * GROUP, GROUP)
        counter += channel_tile * (groups + 1)
        if is_last(counter + group, members):
            of_groups = part + programs * 2 * channels
            first_sum, second_sum = _add_parts(
                part + group * GROUP * 2 * channels, members, channels, c, ROWS, BLOCK_C
            )
            to_group = of_groups + group * 2 * channels + c
            tl.store(to_group, first_sum, mask=has_c)
            tl.store(to_group + channels, second_sum, mask=has_c)
            if is_last(counter + groups, groups):
                _finish_sums(
                    of_groups, numbers, slopes, grad_weight, grad_bias, channels, groups, c,
                    ROWS, MERGE_ONLY, BLOCK_C,
                )  # fmt: skip


@triton.jit
def _add_parts(part, parts, channels, c, ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    """The two sums of ``[parts, 2, C]``."""
    row = tl.arange(0, ROWS)
    first = tl.zeros([ROWS, BLOCK_C], tl.float32)
    second = tl.zeros([ROWS, BLOCK_C], tl.float32)
    for start in range(0, parts, ROWS):
        mask = (start + row < parts)[:, None] & (c < channels)[None, :]
        at = part + (start + row)[:, None] * (2 * channels) + c[None, :]
        first += tl.load(at, mask=mask, other=0.0)
        second += tl.load(at + channels, mask=mask, other=0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def _finish_sums(
    part, numbers, slopes, grad_weight, grad_bias, channels, parts, c,
    ROWS: tl.constexpr, MERGE_ONLY: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add up the sums of parts: gradients of weight and bias, and the slopes of a batch norm's.

    ``MERGE_ONLY`` writes the sums into ``slopes`` instead of the slopes, to be added up over
    processes.
    """
    has_c = c < channels
    sum_g, sum_gy = _add_parts(part, parts, channels, c, ROWS, BLOCK_C)
    inv_std = tl.load(numbers + 3 * channels + c, mask=has_c, other=0.0)
    tl.store(grad_weight + c, sum_gy * inv_std, mask=has_c)
    tl.store(grad_bias + c, sum_g, mask=has_c)
    if MERGE_ONLY:
        tl.store(slopes + c, sum_g, mask=has_c)
        tl.store(slopes + channels + c, sum_gy, mask=has_c)
    else:
        _store_slopes(slopes, numbers, sum_g, sum_gy, inv_std, c, has_c, channels)


@triton.jit
def _store_slopes(slopes, numbers, sum_g, sum_gy, inv_std, c, has_c, channels):
    count = tl.load(numbers + c, mask=has_c, other=1.0)
    share = -tl.load(numbers + 4 * channels + c, mask=has_c, other=0.0) / count
    tl.store(slopes + c, share * inv_std * inv_std * sum_gy, mask=has_c)
    tl.store(slopes + channels + c, share * sum_g, mask=has_c)


@triton.jit
def slopes_of(sums, numbers, slopes, channels, BLOCK_C: tl.constexpr):
    """The slopes as a kernel, from sums that other processes gave to."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    sum_g = tl.load(sums + c, mask=has_c, other=0.0)
    sum_gy = tl.load(sums + channels + c, mask=has_c, other=0.0)
    inv_std = tl.load(numbers + 3 * channels + c, mask=has_c, other=0.0)
    _store_slopes(slopes, numbers, sum_g, sum_gy, inv_std, c, has_c, channels)
