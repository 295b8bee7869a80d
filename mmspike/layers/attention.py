"""Spike-driven self-attention: sums of spikes, linear in the number of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn

from mmspike import fused
from mmspike.layers.conv import build_norm, init_scale
from mmspike.layers.forms import Deployable
from mmspike.layers.rep_conv import RepConv
from mmspike.layers.time import per_step
from mmspike.neurons import build_neuron, firing_input_of, levels_of, unit_of

ATTN_NEURON = {"v_threshold": 0.5}
"""How the neuron after the attention differs, where it has a threshold and nothing is told."""
_EPS = 1e-6
"""Added to a sum of weights that may be 0."""


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


def normalized_linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Average ``v`` over the pixels with the weights ``q^T k``, head by head, without a softmax.

    What an ordinary network has in the place of :func:`linear_attention`: the weights of a pixel
    sum to one, whatever the size of the map and of its values.

    Source: "Transformers are RNNs" (arXiv 2006.16236), equation 5; with ReLU as the feature map, as
    in EfficientViT (arXiv 2205.14756).

    Args:
        q: Non-negative values ``[..., D, N]``: ``D`` channels of a head, ``N`` pixels.
        k: As ``q``.
        v: Values ``[..., D, N]``.

    Returns:
        ``[..., D, N]`` in the type of ``q``; 0 where all weights are 0.
    """
    with torch.autocast(q.device.type, enabled=False):
        dtype = torch.promote_types(q.dtype, torch.float32)
        given, q, k, v = q.dtype, q.to(dtype), k.to(dtype), v.to(dtype)
        kv = k @ v.transpose(-2, -1)  # [..., D of k, D of v]
        weights = k.sum(-1, keepdim=True).transpose(-2, -1) @ q  # [..., 1, N]
        return (kv.transpose(-2, -1) @ q / (weights + _EPS)).to(given)


def mix_heads(q: Tensor, k: Tensor, v: Tensor, num_heads: int, scale: float | None) -> Tensor:
    """:func:`linear_attention`, or the normalized one, over the pixels of maps.

    Args:
        q: Spikes ``[T, B, C, H, W]``; neighbouring channels make up a head.
        k: As ``q``.
        v: As ``q``.
        num_heads: Heads that the channels are split into.
        scale: Factor of the result; ``None`` for :func:`normalized_linear_attention`.

    Returns:
        ``[T, B, C, H, W]``.
    """
    size = q.shape[-2:]
    # [T, B, C, H, W] to [T, B, heads, C / heads, H * W]
    q, k, v = (x.flatten(3).unflatten(2, (num_heads, -1)) for x in (q, k, v))
    if scale is None:
        out = normalized_linear_attention(q, k, v)
    else:
        out = linear_attention(q, k, v, scale)
    return out.flatten(2, 3).unflatten(3, size)  # [T, B, C, H, W]


def split_channels(embed_dims: int, num_heads: int) -> int:
    """The channels of a head.

    Args:
        embed_dims: Channels of the attention.
        num_heads: Heads that they are split into.

    Raises:
        ValueError: If they do not divide among the heads.
    """
    if embed_dims % num_heads:
        raise ValueError(f"embed_dims={embed_dims} do not divide among num_heads={num_heads}")
    return embed_dims // num_heads


def starting_scale(fill: float, levels: int = 1) -> float:
    """Scale of q, k and v at which the attention reaches its neuron's threshold on average.

    An entry of ``scale * q (k^T v)`` is a sum over ``D`` channels and ``N`` pixels of products of
    three numbers of spikes: ``scale * D * N * r**3`` on average, where r is that of one neuron.

    Args:
        fill: Threshold divided by ``scale * D * N`` and by what three spikes are worth.
        levels: Largest number of spikes of a neuron.

    Returns:
        Standard deviation of a neuron's input, in units of its ``firing_input``; at most 1, as in
        other layers.
    """
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if mean_spikes(middle, levels) < fill ** (1 / 3) else (low, middle)
        )
    return high


def init_attention(
    norms: Iterable[nn.Module],
    neuron: nn.Module,
    attn_neuron: nn.Module,
    scale: float | None,
    products: int,
) -> None:
    """Start the norms of q, k and v at the scale that :func:`starting_scale` gives.

    Args:
        norms: Those in front of the neurons of q, k and v.
        neuron: One of those neurons.
        attn_neuron: The neuron that reads the attention.
        scale: Factor of its sums; ``None`` for averages, which need no scale of their own.
        products: Products of a sum, ``D * N``.
    """
    std = 1.0
    if scale is not None:
        drive = scale * products * unit_of(neuron) ** 3
        fill = (firing_input_of(attn_neuron) or 1.0) / drive
        std = starting_scale(fill, levels_of(neuron) or 1)
    for norm in norms:
        init_scale(norm, neuron, std)


def mean_spikes(scale: float, levels: int = 1) -> float:
    """Spikes that a neuron fires on average, if its input is normally distributed around 0.

    Args:
        scale: Standard deviation of the input, in units of the neuron's ``firing_input``.
        levels: Largest number of spikes; they are fired one half, three halves ... of
            ``firing_input / (levels / 2)`` above rest.
    """
    return sum(NormalDist().cdf(-(2 * i + 1) / (levels * scale)) for i in range(levels))


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
        attn_neuron_cfg: Settings in which the neuron after the attention differs.
        scale: Factor of the attention; 0.125 in the published models, whatever the head's width.
            ``None`` averages instead of summing up, see :func:`normalized_linear_attention`: for
            neurons that give real values, whose sums have no bound.
        init_pixels: Pixels of the maps that a training from scratch sees. The attention sums over
            them: q, k and v then start at the firing rate at which it neither is silent nor
            saturates, see :func:`starting_scale`. ``None`` leaves their norms at unit scale, at
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
        scale: float | None = 0.125,
        init_pixels: int | None = None,
    ) -> None:
        super().__init__()
        head_dims = split_channels(embed_dims, num_heads)
        self.num_heads = num_heads
        self.scale = scale
        self.neuron = build_neuron(neuron_cfg)
        for name in ("q", "k", "v", "proj"):
            self.add_module(f"{name}_conv", RepConv(embed_dims, norm_cfg))
            self.add_module(f"{name}_norm", build_norm(norm_cfg, embed_dims))
        self.q_neuron = build_neuron(neuron_cfg)
        self.k_neuron = build_neuron(neuron_cfg)
        self.v_neuron = build_neuron(neuron_cfg)
        self.attn_neuron = build_neuron(neuron_cfg, **attn_neuron_cfg)
        if init_pixels is not None:
            norms = (self.q_norm, self.k_norm, self.v_norm)
            init_attention(norms, self.neuron, self.attn_neuron, scale, head_dims * init_pixels)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        y_seq = fused.attend(self, x_seq)
        if y_seq is not None:
            return y_seq
        s = self.neuron(x_seq)  # spikes
        q, k, v = (
            neuron(per_step(lambda s, c=conv, n=norm: n(c(s)), s))  # type: ignore[misc]
            for conv, norm, neuron in self.projections()
        )
        s = self.attn_neuron(self.mix(q, k, v))
        return per_step(lambda s: self.proj_norm(self.proj_conv(s)), s)

    def projections(self) -> Sequence[tuple[nn.Module, nn.Module, nn.Module]]:
        """Convolution, norm and neuron of q, k and v."""
        return (
            (self.q_conv, self.q_norm, self.q_neuron),
            (self.k_conv, self.k_norm, self.k_neuron),
            (self.v_conv, self.v_norm, self.v_neuron),
        )

    def output(self) -> fused.Link:
        """The layer that reads the mixture of q, k and v."""
        return fused.Link(self.attn_neuron, self.proj_conv, self.proj_norm)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention, head by head; all ``[T, B, C, H, W]``."""
        return mix_heads(q, k, v, self.num_heads, self.scale)
