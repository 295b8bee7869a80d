"""Call of the attention (``csrc/attention.h``)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmspike.native.checks import bits_pointer
from mmspike.native.library import call


def forward(bits: Tensor, shape: tuple[int, int, int], num_heads: int, scale: float) -> Tensor:
    """``scale * q (k^T v)`` head by head, from spikes.

    Args:
        bits: q, k and v, one after the other in the channels: ``[T, bytes of a step]``, a step in
            the order ``[N / T, pixels, 3 C]`` (see :mod:`mmspike.native.conv`).
        shape: N, pixels and C.
        num_heads: Heads that the channels are split into.
        scale: Factor of the result.

    Returns:
        ``[N, pixels, C]``, float32.

    Raises:
        TypeError: If ``bits`` is not a tensor of bytes.
        ValueError: If it is of another size, or the channels do not divide among the heads.
    """
    images, pixels, channels = shape
    if min(shape) < 0 or num_heads < 1 or channels % num_heads:
        raise ValueError(
            f"shape: expected channels that divide among {num_heads} heads, got {channels} in "
            f"{tuple(shape)}"
        )
    bits_at, steps = bits_pointer(bits, images, pixels * 3 * channels)
    out = torch.empty(shape, dtype=torch.float32, device="cpu")
    call(
        "attention",
        bits_at,
        out.data_ptr(),
        steps,
        images,
        pixels,
        channels,
        num_heads,
        scale,
    )
    return out
