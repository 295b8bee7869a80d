"""Call of the attention (``csrc/attention.h``)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from mmspike.native.library import call, pointer


def forward(bits: Tensor, shape: tuple[int, int, int], num_heads: int, scale: float) -> Tensor:
    """``scale * q (k^T v)`` head by head, from spikes.

    Args:
        bits: q, k and v, one after the other in the channels, in the order ``[N, pixels, 3 C]``.
        shape: N, pixels and C.
        num_heads: Heads that the channels are split into.
        scale: Factor of the result.

    Returns:
        ``[N, pixels, C]``, float32.
    """
    out = torch.empty(shape, dtype=torch.float32, device="cpu")
    call(
        "attention",
        pointer(bits),
        pointer(out),
        *map(ctypes.c_int64, (*shape, num_heads)),
        ctypes.c_float(scale),
        torch.get_num_threads(),
    )
    return out
