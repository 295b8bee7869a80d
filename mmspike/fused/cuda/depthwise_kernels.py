"""Kernel of depthwise convolutions of stride 1 on maps with their channels last.

A program has columns of ``OW`` neighbouring pixels for many channels: of every row of the kernel it
reads ``OW + K - 1`` inputs once and uses them ``OW * K`` times from registers. Sums are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

SIZES = ("groups", "out_rows", "out_columns", "rows", "columns", "per_row", "inner")
"""Sizes that the kernel is not compiled for anew; see ``tiles.py``."""


@triton.jit(do_not_specialize=SIZES)
def convolve(
    x, weight, out,
    groups, out_rows, out_columns, rows, columns, per_row, inner,
    PAD: tl.constexpr, FLIP: tl.constexpr, K: tl.constexpr, OW: tl.constexpr,
    VEC: tl.constexpr, GROUPS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Outputs of ``GROUPS`` groups of ``OW`` pixels; ``weight`` is ``[K * K, C]``.

    The kernel's rows are a loop: unrolled, they take ten times as long to compile.
    """
    channels = inner * VEC
    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    row = group // per_row  # of all images
    w = (group % per_row) * OW
    image = row // out_rows
    h = tl.where(group < groups, row % out_rows, -2 * K)  # behind the last: no row is there
    start = image.to(tl.int64) * rows * columns * channels
    sums = ()
    for _ in tl.static_range(OW):
        sums = sums + (tl.zeros([GROUPS, BLOCK_C], tl.float32),)
    for i in range(K):
        from_h, from_w = h + (i - PAD), w - PAD
        has_h = (from_h >= 0) & (from_h < rows)
        at = start + (from_h * columns + from_w).to(tl.int64) * channels
        xs = ()
        for j in tl.static_range(OW + K - 1):
            mask = (has_h & (from_w + j >= 0) & (from_w + j < columns))[:, None] & has_c[None, :]
            value = tl.load(x + (at + j * channels)[:, None] + c[None, :], mask=mask, other=0.0)
            xs = xs + (value.to(tl.float32),)
        ws = ()
        for j in tl.static_range(K):
            tap = K * K - 1 - i * K - j if FLIP else i * K + j
            value = tl.load(weight + tap * channels + c, mask=has_c, other=0.0)
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
