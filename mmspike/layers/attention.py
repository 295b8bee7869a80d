"""Spike-driven self-attention: sums of spikes, linear in the number of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmspike.layers.conv import LIVELY_RATE, RepConv, build_norm, make_lively
from mmspike.layers.event_driven import PackedSpikes, attend, convolve
from mmspike.layers.firing import fire, fire_into_bits, norm_and_fire
from mmspike.layers.forms import Deployable
from mmspike.layers.memory import saving
from mmspike.layers.norm import normalise
from mmspike.layers.time import per_step
from mmspike.neurons import build_neuron


def linear_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Compute ``scale * q (k^T v)``, head by head, without a softmax.

    ``k^T v`` comes first, which costs ``N * D * D`` per head instead of ``N * N * D``. The sums are
    whole numbers that outgrow half precision, so they are kept in float32 under autocast too.

    Args:
        q: Spikes ``[..., D, N]``: ``D`` channels of a head, ``N`` pixels.
        k: As ``q``.
        v: As ``q``.
        scale: Factor of the result.

    Returns:
        ``[..., D, N]`` in the type of ``q``.
    """
    with torch.autocast(q.device.type, enabled=False):
        dtype = torch.promote_types(q.dtype, torch.float32)
        kv = k.to(dtype) @ v.to(dtype).transpose(-2, -1)  # [..., D of k, D of v]
        out = kv.transpose(-2, -1) @ q.to(dtype) * scale
        return out.clamp(max=torch.finfo(q.dtype).max).to(q.dtype)


def starting_rate(fill: float) -> float:
    """Firing rate of q, k and v at which the attention reaches its neuron's threshold on average.

    An entry of ``scale * q (k^T v)`` is a sum over ``D`` channels and ``N`` pixels of products of
    three spikes: at rate r, ``scale * D * N * r**3`` on average.

    Args:
        fill: Threshold divided by ``scale * D * N``.

    Returns:
        The rate, at most that of one standard deviation above the mean (16 %).
    """
    return min(fill ** (1 / 3), LIVELY_RATE)


class SpikeDrivenSelfAttention(Deployable):
    """Self-attention on spikes, the third kind of "Spike-driven Transformer V2".

    ``x -> neuron -> q, k, v = neuron(norm(RepConv(.))) -> q (k^T v) * scale -> neuron
    -> norm(RepConv(.))``

    Source: arXiv 2404.03663, section 3.2 (SDSA-3); the factor is the published code's.

    Args:
        embed_dims: Channels.
        num_heads: Heads that the channels are split into.
        norm_cfg: Config of the norms.
        neuron_cfg: Config of the neurons.
        attn_neuron_cfg: What the neuron behind the attention has different from ``neuron_cfg``.
        scale: Factor of the attention; 0.125 in the published models, whatever the head's width.
        init_pixels: Pixels of the maps that a training from scratch sees. The attention sums over
            them: q, k and v then start at the firing rate at which it neither is silent nor
            saturates, see :func:`starting_rate`. ``None`` leaves their norms at unit scale, at
            which it is silent on most maps.

    Raises:
        ValueError: If the channels do not divide among the heads.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        norm_cfg: dict[str, Any],
        neuron_cfg: dict[str, Any] | None,
        attn_neuron_cfg: dict[str, Any],
        scale: float = 0.125,
        init_pixels: int | None = None,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f"embed_dims={embed_dims} do not divide among num_heads={num_heads}")
        self.num_heads = num_heads
        self.scale = scale
        self.neuron = build_neuron(neuron_cfg)
        self.qkv_conv: nn.Module | None = None  # all three in one pass, when deployed
        for name in ("q", "k", "v", "proj"):
            self.add_module(f"{name}_conv", RepConv(embed_dims, norm_cfg))
            self.add_module(f"{name}_norm", build_norm(norm_cfg, embed_dims))
        self.q_neuron = build_neuron(neuron_cfg)
        self.k_neuron = build_neuron(neuron_cfg)
        self.v_neuron = build_neuron(neuron_cfg)
        self.attn_neuron = build_neuron(neuron_cfg, **attn_neuron_cfg)
        if init_pixels is not None:
            drive = scale * (embed_dims // num_heads) * init_pixels
            rate = starting_rate(getattr(self.attn_neuron, "firing_input", 1.0) / drive)
            for norm in (self.q_norm, self.k_norm, self.v_norm):
                make_lively(norm, self.neuron, rate)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        convs = (
            (self.q_conv, self.k_conv, self.v_conv) if self.qkv_conv is None else (self.qkv_conv,)
        )
        s = fire(self.neuron, x_seq, *convs)
        out = self.attend(s, x_seq.shape[-2:])
        s = fire(self.attn_neuron, out, self.proj_conv)
        with saving(s, self.attn_neuron):
            return per_step(lambda s: normalise(self.proj_norm, convolve(self.proj_conv, s)), s)

    def attend(self, s: Tensor | PackedSpikes, size: Sequence[int]) -> Tensor:
        """Attention of spikes ``[T, B, C, H, W]``, of the same shape."""
        if self.qkv_conv is not None:
            y = per_step(lambda s: convolve(self.qkv_conv, s), s)
            spikes = fire_into_bits(self.q_neuron, y)
            if spikes is not None:
                return attend(spikes, self.num_heads, self.scale)
            q, k, v = self.q_neuron(y).chunk(3, dim=2)
        else:
            with saving(s, self.neuron):
                q, k, v = self.project(s)
        q, k, v = (self.split_heads(y) for y in (q, k, v))
        return linear_attention(q, k, v, self.scale).flatten(2, 3).unflatten(3, size)

    def project(self, s: Tensor | PackedSpikes) -> Sequence[Tensor]:
        """Compute the spikes q, k and v, each ``[T, B, C, H, W]``, from spikes of that shape."""
        return tuple(
            norm_and_fire(norm, neuron, per_step(lambda s, conv=conv: convolve(conv, s), s))
            for conv, norm, neuron in (
                (self.q_conv, self.q_norm, self.q_neuron),
                (self.k_conv, self.k_norm, self.k_neuron),
                (self.v_conv, self.v_norm, self.v_neuron),
            )
        )

    def split_heads(self, x_seq: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` to ``[T, B, heads, C / heads, H * W]``."""
        return x_seq.flatten(3).unflatten(2, (self.num_heads, -1))
