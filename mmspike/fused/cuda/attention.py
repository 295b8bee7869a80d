"""``scale * q (k^T v)`` of spikes in channels-last memory, and its gradients.

Sums are float32, whole numbers below 2**24: exact. Maps are split into heads as they are cast, and
joined as they are cast back, so that no copy is made for the layout alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.fused.cuda import norm_lif
from mmspike.fused.cuda.spikes import Spikes


def why_not_mix(q: Tensor, num_heads: int, scale: float) -> str | None:
    """Why spikes like ``q``, ``[T, B, C, H, W]``, are mixed plainly; ``None`` if not."""
    if q.stride(2) != 1:
        return "the channels are not last"
    most = scale * (q.size(2) // num_heads) * q.shape[-2:].numel()
    if most > torch.finfo(q.dtype).max:
        return "the sums may overflow, and have to be clamped"
    return None


def mix(qkv: Sequence[Spikes], num_heads: int, scale: float) -> Tensor:
    """:func:`mmspike.layers.attention.mix_heads` of channels-last maps.

    Args:
        qkv: q, k and v, ``[T, B, C, H, W]`` each, of one shape.
        num_heads: Heads that the channels are split into.
        scale: Factor of the result.

    Returns:
        ``[T, B, C, H, W]`` in channels-last memory, typed as they.
    """
    return _Mix.apply(*(s.values for s in qkv), [s.bits for s in qkv], num_heads, scale)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bits: list[Tensor | None],
        num_heads: int,
        scale: float,
    ) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):
            qs, ks, vs = (_split(x, num_heads) for x in (q, k, v))
            kv = ks.transpose(1, 2) @ vs  # [T * B * heads, D of k, D of v]
            out = torch.baddbmm(kv.new_zeros(()), qs, kv, beta=0, alpha=scale)
        kept = [x if b is None else b for x, b in zip((q, k, v), bits, strict=True)]
        ctx.save_for_backward(*kept, kv)
        ctx.shape, ctx.strides, ctx.dtype = q.shape, q.stride(), q.dtype
        ctx.num_heads, ctx.scale = num_heads, scale
        return _join(out, q.shape, q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_out: Tensor) -> tuple:
        *kept, kv = ctx.saved_tensors
        q, k, v = (_split(_restored(x, ctx), ctx.num_heads) for x in kept)
        g = _split(grad_out, ctx.num_heads).mul_(ctx.scale)
        with torch.autocast(g.device.type, enabled=False):
            grad_kv = q.transpose(1, 2) @ g
            grads = (g @ kv.transpose(1, 2), v @ grad_kv.transpose(1, 2), k @ grad_kv)
        return *(_join(x, ctx.shape, ctx.dtype) for x in grads), None, None, None


def _restored(kept: Tensor, ctx: FunctionCtx) -> Tensor:
    if kept.dim() != 1:
        return kept
    like = torch.empty_strided(ctx.shape, ctx.strides, dtype=ctx.dtype, device=kept.device)
    return norm_lif.unpack(kept, like)


def _split(x: Tensor, num_heads: int) -> Tensor:
    """``[T, B, C, H, W]`` to ``[T * B * heads, H * W, D]``, float32, in one pass."""
    t, b, c, h, w = x.shape
    pixels = x.permute(0, 1, 3, 4, 2).reshape(t * b, h * w, num_heads, c // num_heads)
    out = torch.empty_like(
        pixels.transpose(1, 2), dtype=torch.float32, memory_format=torch.contiguous_format
    )
    return out.copy_(pixels.transpose(1, 2)).flatten(0, 1)


def _join(x: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Undo :func:`_split`, into channels-last memory."""
    t, b, c, h, w = shape
    heads = x.view(t * b, -1, h * w, x.size(-1)).transpose(1, 2)
    out = torch.empty_like(heads, dtype=dtype, memory_format=torch.contiguous_format)
    return out.copy_(heads).view(t, b, h, w, c).permute(0, 1, 4, 2, 3)
