"""Kernels of depthwise convolutions of stride 1 on maps with their channels last.

A program has columns of ``OW`` neighbouring pixels for many channels: of every row of the kernel it
reads ``OW + K - 1`` inputs once and uses them ``OW * K`` times from registers. Sums are float32.
The gradient of the weights keeps all ``K * K`` sums of its channels in registers while it goes over
rows, and adds them up over programs in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _row(
    x, border, at, h, w, c, has_c, rows, columns, channels,
    N: tl.constexpr, HAS_BORDER: tl.constexpr,
):  # fmt: skip
    """``N`` neighbouring pixels of a row, ``[GROUPS, BLOCK_C]`` each, from column ``w`` on."""
    here = (h >= 0) & (h < rows)
    values = ()
    for j in tl.static_range(N):
        inside = here & (w + j >= 0) & (w + j < columns)
        mask = inside[:, None] & has_c[None, :]
        value = tl.load(x + at + j * channels, mask=mask, other=0.0).to(tl.float32)
        if HAS_BORDER:
            value = tl.where(inside[:, None], value, border)
        values = values + (value,)
    return values


@triton.jit
def convolve(
    x, weight, border, out,
    groups, out_rows, out_columns, rows, columns, per_row, inner,
    PAD: tl.constexpr, FLIP: tl.constexpr, HAS_BORDER: tl.constexpr,
    K: tl.constexpr, OW: tl.constexpr, VEC: tl.constexpr,
    GROUPS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Outputs of ``GROUPS`` groups of ``OW`` pixels; ``weight`` is ``[K * K, C]``."""
    channels = inner * VEC
    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    row = group // per_row  # of all images
    w = (group % per_row) * OW
    image = row // out_rows
    h = tl.where(group < groups, row % out_rows, -2 * K)  # behind the last: no row is there
    outside = tl.zeros([GROUPS, BLOCK_C], tl.float32)
    if HAS_BORDER:
        outside += tl.load(border + c, mask=has_c, other=0.0).to(tl.float32)[None, :]
    sums = ()
    for _ in tl.static_range(OW):
        sums = sums + (tl.zeros([GROUPS, BLOCK_C], tl.float32),)
    start = image.to(tl.int64) * rows * columns * channels
    for i in tl.static_range(K):
        from_h = h + (i - PAD)
        row_at = start + (from_h * columns + w - PAD).to(tl.int64) * channels
        xs = _row(
            x, outside, row_at[:, None] + c[None, :], from_h, w - PAD, c, has_c, rows, columns,
            channels, OW + K - 1, HAS_BORDER,
        )  # fmt: skip
        ws = ()
        for j in tl.static_range(K):
            at = weight + (K * K - 1 - i * K - j if FLIP else i * K + j) * channels + c
            value = tl.load(at, mask=has_c, other=0.0)
            ws = ws + (value.to(tl.float32)[None, :],)
        new = ()
        for o in tl.static_range(OW):
            a = sums[o]
            for j in tl.static_range(K):
                a += xs[o + j] * ws[j]
            new = new + (a,)
        sums = new
    to = out + (row.to(tl.int64) * out_columns + w)[:, None] * channels + c[None, :]
    for o in tl.static_range(OW):
        mask = ((group < groups) & (w + o < out_columns))[:, None] & has_c[None, :]
        tl.store(to + o * channels, sums[o].to(out.dtype.element_ty), mask=mask)


@triton.jit
def grad_weight(
    x, grad_out, border, part,
    groups, out_rows, out_columns, rows, columns, per_row, inner, programs,
    PAD: tl.constexpr, HAS_BORDER: tl.constexpr,
    K: tl.constexpr, OW: tl.constexpr, VEC: tl.constexpr,
    GROUPS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums of a program's groups for every weight, into ``part``, ``[programs, K * K, C]``."""
    channels = inner * VEC
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    outside = tl.zeros([GROUPS, BLOCK_C], tl.float32)
    if HAS_BORDER:
        outside += tl.load(border + c, mask=has_c, other=0.0).to(tl.float32)[None, :]
    sums = ()
    for _ in tl.static_range(K * K):
        sums = sums + (tl.zeros([GROUPS, BLOCK_C], tl.float32),)
    # neighbouring rows go to one program, so that what it reads again is near
    share = tl.cdiv(tl.cdiv(groups, GROUPS), programs)
    begin = tl.program_id(0) * share
    for k in range(begin, begin + share):
        group = k * GROUPS + tl.arange(0, GROUPS)
        row = group // per_row
        w = (group % per_row) * OW
        image = row // out_rows
        h = row % out_rows
        to = (row.to(tl.int64) * out_columns + w)[:, None] * channels + c[None, :]
        gs = ()
        for o in tl.static_range(OW):
            mask = ((group < groups) & (w + o < out_columns))[:, None] & has_c[None, :]
            g = tl.load(grad_out + to + o * channels, mask=mask, other=0.0)
            gs = gs + (g.to(tl.float32),)
        start = image.to(tl.int64) * rows * columns * channels
        new = ()
        for i in tl.static_range(K):
            from_h = tl.where(group < groups, h + (i - PAD), -1)
            at = start + (from_h * columns + w - PAD).to(tl.int64) * channels
            xs = _row(
                x, outside, at[:, None] + c[None, :], from_h, w - PAD, c, has_c, rows, columns,
                channels, OW + K - 1, HAS_BORDER,
            )  # fmt: skip
            for j in tl.static_range(K):
                a = sums[i * K + j]
                for o in tl.static_range(OW):
                    a += gs[o] * xs[o + j]
                new = new + (a,)
        sums = new
    to = part + tl.program_id(0).to(tl.int64) * (K * K * channels) + c
    for j in tl.static_range(K * K):
        tl.store(to + j * channels, tl.sum(sums[j], 0), mask=has_c)


@triton.jit
def add_up(
    part, grad, parts, channels, TAPS: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr
):
    """``[parts, TAPS, C]`` to ``[C, TAPS]``."""
    tap = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    row = tl.arange(0, ROWS)
    sums = tl.zeros([ROWS, BLOCK_C], tl.float32)
    for start in range(0, parts, ROWS):
        mask = (start + row < parts)[:, None] & has_c[None, :]
        at = ((start + row) * TAPS + tap)[:, None] * channels + c[None, :]
        sums += tl.load(part + at, mask=mask, other=0.0)
    tl.store(grad + c * TAPS + tap, tl.sum(sums, 0), mask=has_c)
