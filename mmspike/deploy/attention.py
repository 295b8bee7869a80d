"""The attention of a deployed model: q, k and v in one pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmspike import fused
from mmspike.layers.attention import SpikeDrivenSelfAttention, mix_heads
from mmspike.layers.forms import Deployable
from mmspike.layers.time import per_step


class DeployedSelfAttention(Deployable):
    """A :class:`~mmspike.layers.attention.SpikeDrivenSelfAttention` whose norms are folded in.

    Args:
        trained: The attention that it takes the place of, whose neurons and projection, the norm
            folded in, it keeps.
        qkv_conv: Computes q, k and v, one after the other in the channels.
    """

    def __init__(self, trained: SpikeDrivenSelfAttention, qkv_conv: nn.Module) -> None:
        super().__init__()
        self.num_heads = trained.num_heads
        self.scale = trained.scale
        self.neuron = trained.neuron
        self.qkv_conv = qkv_conv
        self.q_neuron = trained.q_neuron  # reads q, k and v
        self.attn_neuron = trained.attn_neuron
        self.proj_conv = trained.proj_conv
        self.qkv_norm = nn.Identity()
        self.proj_norm = nn.Identity()

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        y_seq = fused.attend(self, x_seq)
        if y_seq is not None:
            return y_seq
        s = self.neuron(x_seq)  # spikes
        qkv = self.q_neuron(per_step(self.qkv_conv, s))  # [T, B, 3 C, H, W]
        s = self.attn_neuron(self.mix(*qkv.chunk(3, dim=2)))
        return per_step(self.proj_conv, s)

    def projections(self) -> Sequence[tuple[nn.Module, nn.Module, nn.Module]]:
        """The convolution of q, k and v, no norm, and their neuron."""
        return ((self.qkv_conv, self.qkv_norm, self.q_neuron),)

    def output(self) -> fused.Link:
        """The layer that reads the mixture of q, k and v."""
        return fused.Link(self.attn_neuron, self.proj_conv, self.proj_norm)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention, head by head; all ``[T, B, C, H, W]``."""
        return mix_heads(q, k, v, self.num_heads, self.scale)
