"""Kernels of a batch's statistics: Welford's numbers, merged in a fixed order.

The last program of a group merges what the group found, the last group what the groups found.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmspike.fused.cuda.tiles import SIZES, channels_of, tile


@triton.jit(do_not_specialize=SIZES)
def batch_statistics(
    y, part, numbers, weight, bias, running_mean, running_var, tracked, counter, momentum, eps,
    units, programs, chunks, inner, outer, per_image,
    TIME_STEPS: tl.constexpr, UNROLL: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr,
    MERGE_ONLY: tl.constexpr,
    LAST: tl.constexpr, VEC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Count, mean and squared distances of all channels; and the norm that they make."""
    step = units.to(tl.int64) * VEC
    channels = channels_of(inner, outer, LAST, VEC)
    program, channel_tile = tl.program_id(0), tl.program_id(1)
    n = tl.zeros([BLOCK_P], tl.float32)  # Welford's numbers of every lane
    mean = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    m2 = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for start in range(program, chunks, programs * UNROLL):
        for u in tl.static_range(UNROLL):
            chunk = start + u * programs
            first, offsets, c, has_p, has_c = tile(
                chunk, channel_tile, chunks, inner, outer, per_image, LAST, VEC, BLOCK_P, BLOCK_C
            )
            mask = has_p[:, None] & has_c[None, :]
            at = y + first
            for _ in tl.static_range(TIME_STEPS):
                value = tl.load(at + offsets, mask=mask, other=0.0).to(tl.float32)
                at += step
                n += has_p.to(tl.float32)
                distance = tl.where(mask, value - mean, 0.0)
                mean += distance * (1.0 / tl.maximum(n, 1.0))[:, None]
                m2 += distance * (value - mean)
    total = tl.sum(n, 0)
    centre = tl.sum(n[:, None] * mean, 0) / tl.maximum(total, 1.0)
    apart = mean - centre[None, :]
    spread = tl.sum(m2, 0) + tl.sum(n[:, None] * (apart * apart), 0)
    c = channel_tile * BLOCK_C + tl.arange(0, BLOCK_C)
    _store_statistics(part + program * 3 * channels + c, total, centre, spread, channels, c)
    group, groups = program // GROUP, tl.cdiv(programs, GROUP)
    members = tl.minimum(programs - group * GROUP, GROUP)
    counter += channel_tile * (groups + 1)
    if is_last(counter + group, members):
        of_groups = part + programs * 3 * channels
        n_group, mean_group, m2_group = _merge(
            part + group * GROUP * 3 * channels, members, channels, c, ROWS, BLOCK_C
        )
        to = of_groups + group * 3 * channels + c
        _store_statistics(to, n_group, mean_group, m2_group, channels, c)
        if is_last(counter + groups, groups):
            _finish_statistics(
                of_groups, numbers, weight, bias, running_mean, running_var, tracked, momentum,
                eps, channels, groups, channel_tile, ROWS, MERGE_ONLY, BLOCK_C,
            )  # fmt: skip


@triton.jit
def is_last(counter, of):
    """Whether this program is the last ``of`` those that come here; it sees what they wrote."""
    tl.debug_barrier()
    last = tl.atomic_add(counter, 1, sem="acq_rel") == of - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def _store_statistics(to, total, mean, m2, channels, c):
    tl.store(to, tl.zeros_like(mean) + total, mask=c < channels)
    tl.store(to + channels, mean, mask=c < channels)
    tl.store(to + 2 * channels, m2, mask=c < channels)


@triton.jit
def _merge(part, parts, channels, c, ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Count, mean and sum of squared distances of ``[parts, 3, C]`` together."""
    row = tl.arange(0, ROWS)
    n = tl.zeros([ROWS, BLOCK_C], tl.float32)
    mean = tl.zeros([ROWS, BLOCK_C], tl.float32)
    m2 = tl.zeros([ROWS, BLOCK_C], tl.float32)
    for start in range(0, parts, ROWS):
        mask = (start + row < parts)[:, None] & (c < channels)[None, :]
        at = part + (start + row)[:, None] * (3 * channels) + c[None, :]
        count = tl.load(at, mask=mask, other=0.0)
        distance = tl.load(at + channels, mask=mask, other=0.0) - mean
        share = count / tl.maximum(n + count, 1.0)
        m2 += tl.load(at + 2 * channels, mask=mask, other=0.0) + distance * distance * (n * share)
        mean += distance * share
        n += count
    total = tl.sum(n, 0)
    centre = tl.sum(n * mean, 0) / tl.maximum(total, 1.0)
    apart = mean - centre[None, :]
    return total, centre, tl.sum(m2, 0) + tl.sum(n * (apart * apart), 0)


@triton.jit
def _finish_statistics(
    part, numbers, weight, bias, running_mean, running_var, tracked, momentum, eps,
    channels, parts, channel_tile,
    ROWS: tl.constexpr, MERGE_ONLY: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Merge the statistics of parts; unless it is all that is asked for, make the norm of them."""
    c = channel_tile * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    total, mean, m2 = _merge(part, parts, channels, c, ROWS, BLOCK_C)
    _store_statistics(numbers + c, total, mean, m2, channels, c)
    if not MERGE_ONLY:
        inv_std = 1.0 / tl.sqrt_rn(m2 / total + eps)
        scale = tl.load(weight + c, mask=has_c, other=0.0).to(tl.float32) * inv_std
        shift = tl.load(bias + c, mask=has_c, other=0.0).to(tl.float32) - mean * scale
        tl.store(numbers + 3 * channels + c, inv_std, mask=has_c)
        tl.store(numbers + 4 * channels + c, scale, mask=has_c)
        tl.store(numbers + 5 * channels + c, shift, mask=has_c)
        old = tl.load(running_mean + c, mask=has_c, other=0.0)
        tl.store(running_mean + c, old + momentum * (mean - old), mask=has_c)
        old = tl.load(running_var + c, mask=has_c, other=0.0)
        unbiased = m2 / tl.maximum(total - 1.0, 1.0)
        tl.store(running_var + c, old + momentum * (unbiased - old), mask=has_c)
        if channel_tile == 0:
            tl.store(tracked, tl.load(tracked) + 1)


@triton.jit
def finish_statistics(
    part, numbers, weight, bias, running_mean, running_var, tracked, momentum, eps,
    channels, parts,
    ROWS: tl.constexpr, MERGE_ONLY: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The same as a kernel, for parts that other processes gave."""
    _finish_statistics(
        part, numbers, weight, bias, running_mean, running_var, tracked, momentum, eps,
        channels, parts, tl.program_id(0), ROWS, MERGE_ONLY, BLOCK_C,
    )  # fmt: skip


@triton.jit
def running_statistics(
    numbers, weight, bias, running_mean, running_var, eps,
    channels,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The numbers of a norm in evaluation, from the running statistics."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    mean = tl.load(running_mean + c, mask=has_c, other=0.0)
    var = tl.load(running_var + c, mask=has_c, other=1.0)
    inv_std = 1.0 / tl.sqrt_rn(var + eps)
    scale = tl.load(weight + c, mask=has_c, other=0.0).to(tl.float32) * inv_std
    shift = tl.load(bias + c, mask=has_c, other=0.0).to(tl.float32) - mean * scale
    tl.store(numbers + channels + c, mean, mask=has_c)
    tl.store(numbers + 3 * channels + c, inv_std, mask=has_c)
    tl.store(numbers + 4 * channels + c, scale, mask=has_c)
    tl.store(numbers + 5 * channels + c, shift, mask=has_c)
