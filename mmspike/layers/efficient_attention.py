"""Spike-driven self-attention of E-SpikeFormer: integers, and values of four times the width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmspike import fused
from mmspike.layers.attention import init_attention, mix_heads, split_channels
from mmspike.layers.conv import spike_conv
from mmspike.layers.time import per_step
from mmspike.neurons import build_neuron

VALUE_RATIO = 4
"""Width of the values, in units of that of queries and keys."""


class EfficientSpikeAttention(nn.Module):
    """Self-attention on integers, with values of four times the width.

    ``x -> neuron -> q, k, v = neuron(norm(1x1(.))) -> q (k^T v) * 2 / sqrt(C / heads) -> neuron
    -> norm(1x1(.))``

    Source: arXiv 2411.16061, section 4 (E-SDSA); the factor is the published code's.

    Args:
        embed_dims: Channels C.
        num_heads: Heads that the channels are split into.
        norm_cfg: Config of the norms.
        neuron_cfg: Config of the neurons.
        scale: The factor; ``None`` averages over the pixels.
        init_pixels: Pixels of the maps that a training from scratch sees, as in
            :class:`mmspike.layers.attention.SpikeDrivenSelfAttention`.

    Raises:
        ValueError: If the channels do not divide among the heads.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        norm_cfg: dict[str, Any],
        neuron_cfg: dict[str, Any],
        scale: float | str | None = "published",
        init_pixels: int | None = None,
    ) -> None:
        super().__init__()
        head_dims = split_channels(embed_dims, num_heads)
        self.num_heads = num_heads
        published = 2 / head_dims**0.5
        factor: Any = published if scale == "published" else scale
        self.scale: float | None = factor
        self.neuron = build_neuron(neuron_cfg)
        wide = VALUE_RATIO * embed_dims
        for name, channels in (("q", embed_dims), ("k", embed_dims), ("v", wide)):
            conv = spike_conv(embed_dims, channels, norm_cfg=norm_cfg, neuron_cfg=False)
            self.add_module(name, conv)  # reads the spikes of the one neuron above
            self.add_module(f"{name}_neuron", build_neuron(neuron_cfg))
        self.proj = spike_conv(wide, embed_dims, norm_cfg=norm_cfg, neuron_cfg=neuron_cfg)
        if init_pixels is not None:
            norms = (self.q.norm, self.k.norm, self.v.norm)
            products = head_dims * init_pixels
            init_attention(norms, self.neuron, self.proj.neuron, self.scale, products)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        y_seq = fused.attend(self, x_seq)
        if y_seq is not None:
            return y_seq
        s = self.neuron(x_seq)  # integers of spikes
        q, k, v = (
            neuron(per_step(nn.Sequential(conv, norm), s))
            for conv, norm, neuron in self.projections()
        )  # [T, B, C, H, W] twice, [T, B, 4 C, H, W]
        return self.proj(self.mix(q, k, v))

    def projections(self) -> Sequence[tuple[nn.Module, nn.Module, nn.Module]]:
        """Convolution, norm and neuron of q, k and v."""
        return (
            (self.q.layer, self.q.norm, self.q_neuron),
            (self.k.layer, self.k.norm, self.k_neuron),
            (self.v.layer, self.v.norm, self.v_neuron),
        )

    def output(self) -> fused.Link:
        """The layer that reads the mixture of q, k and v."""
        return fused.Link(self.proj.neuron, self.proj.layer, self.proj.norm)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``scale * q (k^T v)``, head by head: ``[T, B, 4 C, H, W]``, as ``v``."""
        return mix_heads(q, k, v, self.num_heads, self.scale)
