"""How maps lie in memory, and how kernels cut them into tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

SIZES = ("units", "programs", "chunks", "inner", "outer", "per_image")
"""Sizes that kernels are not compiled for anew, as Triton does for multiples of 16: layers of many
sizes share a kernel. What has to be known of a size is its factor ``VEC``."""


class Layout(NamedTuple):
    """How the steps of ``[T, B, C, H, W]`` lie in memory, each dense, one behind the other.

    Attributes:
        last: Whether the channels are last: ``[B * H * W, C]``; else ``[B, C, H * W]``.
        time_steps: T.
        images: B.
        channels: C.
        pixels: Pixels of one image, H * W.
    """

    last: bool
    time_steps: int
    images: int
    channels: int
    pixels: int

    @property
    def step(self) -> int:
        """Elements of a step."""
        return self.images * self.channels * self.pixels

    @property
    def takes_bits(self) -> bool:
        """Whether eight neighbours in memory are channels of one pixel."""
        return self.last and self.channels % 8 == 0

    def lay_out(self, x_seq: Tensor) -> Tensor:
        """A copy of a map of this size in this layout."""
        return in_channels_last(x_seq) if self.last else x_seq.contiguous()


def layout_of(shape: Sequence[int], strides: Sequence[int]) -> Layout | None:
    """The layout of ``[T, B, C, H, W]``; ``None`` if the kernels cannot read it."""
    if len(shape) != 5 or 0 in shape:
        return None
    t, b, c, h, w = shape
    last = (b * c * h * w, h * w * c, 1, w * c, c)
    first = (b * c * h * w, c * h * w, h * w, w, 1)
    for expected, is_last in ((last, True), (first, False)):
        axes = zip(shape, strides, expected, strict=True)
        if all(n == 1 or a == b for n, a, b in axes):
            return Layout(is_last, t, b, c, h * w)
    return None


def in_channels_last(x_seq: Tensor) -> Tensor:
    """``[T, B, C, H, W]`` with its steps one behind the other, and the channels last in each."""
    return x_seq.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


class Tiling(NamedTuple):
    """How a kernel cuts a step into tiles of ``BLOCK_P`` pixels and ``BLOCK_C`` channels.

    The contiguous axis has ``inner`` units of ``VEC`` elements, so that the compiler knows that
    rows start at multiples of 16 bytes where they do.
    """

    units: int  # of a step
    inner: int
    outer: int
    per_image: int  # tiles along the pixels of an image, with the channels first
    chunks: int  # tiles along all pixels
    channel_tiles: int
    constants: dict[str, Any]


def tiling(layout: Layout, elements: int) -> Tiling:
    """Cut a layout into tiles of about so many elements."""
    inner = layout.channels if layout.last else layout.pixels
    vec = math.gcd(inner, 8)
    if layout.last:
        # few masked channels: the widest tile that wastes less than an eighth, else the narrowest
        widths = [w for w in (128, 64, 32) if -layout.channels % w <= layout.channels / 8]
        block_c = min(widths[0] if widths else 32, triton.next_power_of_2(layout.channels))
        block_c = min(block_c, elements)
        block_p = elements // block_c
        rows = layout.images * layout.pixels
        chunks, per_image, outer = triton.cdiv(rows, block_p), 1, rows
    else:
        block_c, block_p = 1, min(elements, triton.next_power_of_2(layout.pixels))
        per_image = triton.cdiv(layout.pixels, block_p)
        chunks, outer = per_image * layout.images, layout.channels
    constants = {"LAST": layout.last, "VEC": vec, "BLOCK_P": block_p, "BLOCK_C": block_c}
    return Tiling(
        layout.step // vec,
        inner // vec,
        outer,
        per_image,
        chunks,
        triton.cdiv(layout.channels, block_c),
        constants,
    )


@triton.jit
def channels_of(inner, outer, LAST: tl.constexpr, VEC: tl.constexpr):
    """Channels of a map, so that the compiler knows that they are a multiple of ``VEC``."""
    return inner * VEC if LAST else outer


@triton.jit
def tile(
    chunk, channel_tile, chunks, inner, outer, per_image,
    LAST: tl.constexpr, VEC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Where a tile of a step lies; one behind the last has nothing in it.

    Returns:
        Its first element, the offsets of its elements ``[BLOCK_P, BLOCK_C]`` from that, channels
        ``[BLOCK_C]``, and which pixels ``[BLOCK_P]`` and channels ``[BLOCK_C]`` are there.
    """
    at_p = tl.arange(0, BLOCK_P)
    c = channel_tile * BLOCK_C + tl.arange(0, BLOCK_C)
    if LAST:
        channels = channels_of(inner, outer, LAST, VEC)
        first = chunk.to(tl.int64) * (BLOCK_P * channels)
        offsets = at_p[:, None] * channels + c[None, :]
        has_p = chunk * BLOCK_P + at_p < outer
        has_c = c < channels
    else:
        pixels = inner * VEC
        p = (chunk % per_image) * BLOCK_P + at_p
        first = (chunk // per_image).to(tl.int64) * outer * pixels
        offsets = c[None, :] * pixels + p[:, None]
        has_p = p < pixels
        has_c = c < outer
    exists = tl.zeros([BLOCK_P], tl.int32) + chunk < chunks
    return first, offsets, c, has_p & exists, has_c
