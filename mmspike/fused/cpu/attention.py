"""The attention of a deployed model, counted from bits."""

from __future__ import annotations

from torch import Tensor

from mmspike.fused.cpu.spikes import PackedSpikes
from mmspike.native import attention


def mix_packed(qkv: PackedSpikes, num_heads: int, scale: float) -> Tensor:
    """``scale * q (k^T v)`` from bits; see :func:`mmspike.layers.attention.mix_heads`.

    Args:
        qkv: q, k and v, one after the other in the channels: ``[T, B, 3 C, H, W]``.
        num_heads: Heads that the channels are split into.
        scale: Factor of the result.

    Returns:
        ``[T, B, C, H, W]`` in channels-last memory.
    """
    t, b, c, h, w = qkv.shape
    out = attention.forward(qkv.bits, (t * b, h * w, c // 3), num_heads, scale)
    return out.view(t, b, h, w, c // 3).permute(0, 1, 4, 2, 3)
