"""Layers of binary frames: neurons that give them, weights and attention that read them.

The D frames of a step follow one another on the time axis: ``[T * D, ...]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmspike import fused
from mmspike.layers.forms import Deployable
from mmspike.layers.time import per_step
from mmspike.neurons import IntegerLIF
from mmspike.neurons.kernels.integer import integer_lif_multi_step


class BinaryFrames(nn.Module):
    """An integer neuron that gives D binary frames a step: ``[T, ...]`` to ``[T * D, ...]``.

    Args:
        neuron: The integer neuron.
        replaces: Names, in the integer network, of the neurons whose work it does.
    """

    spike_levels: int = 1

    def __init__(self, neuron: IntegerLIF, replaces: tuple[str, ...]) -> None:
        super().__init__()
        self.frames = neuron.levels
        self.beta = neuron.beta
        self.replaces = replaces
        unit = "n / D" if neuron.normalize else "n"
        self.form = f"unrolled to {neuron.levels} frames of {unit}"

    def forward(self, x_seq: Tensor) -> Tensor:
        """Fire: frame d of a step, from 0, is 1 where the integer is above d."""
        counts = integer_lif_multi_step(x_seq, self.frames, self.beta, False, True)
        frames = [(counts > d).to(x_seq.dtype) for d in range(self.frames)]
        return torch.stack(frames, dim=1).flatten(0, 1)

    def extra_repr(self) -> str:
        """The number of frames, as torch prints it."""
        return f"frames={self.frames}"


def add_up(y_seq: Tensor, frames: int) -> Tensor:
    """Sum over the frames of every step: ``[T * D, ...]`` to ``[T, ...]``."""
    return y_seq.unflatten(0, (-1, frames)).sum(1)


class UnrolledSpikeLayer(Deployable):
    """A :class:`~mmspike.layers.conv.SpikeLayer` whose weights read binary frames.

    Args:
        fire: Gives the frames.
        weights: Reads them, its weights scaled to.
        after: The norm that could not be folded into the weights, or nothing.
    """

    def __init__(self, fire: BinaryFrames, weights: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.fire = fire
        self.weights = weights
        self.after = after
        self.mark(fire.form)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, C, ...]`` to ``[T, B, C', ...]``."""
        split = isinstance(self.weights, fused.SplitLayer)
        y_seq = per_step(self.weights.first if split else self.weights, self.fire(x_seq))
        y_seq = add_up(y_seq, self.fire.frames)  # [T * D, B, C', ...] to [T, B, C', ...]
        return per_step(self.after, per_step(self.weights.rest, y_seq) if split else y_seq)

    def forward_levels(self, x_seqs: list[Tensor]) -> list[Tensor]:
        """Map the levels of a pyramid, one after the other."""
        return [self(x_seq) for x_seq in x_seqs]


class UnrolledAttention(Deployable):
    """Attention on all pairs of binary frames.

    ``k^T v`` is the sum of ``k_i^T v_j`` over all pairs of frames, and ``q (k^T v)`` that of
    ``q_i (k^T v)``: whole numbers, up to the one factor at the end.

    Args:
        num_heads: Heads that the channels are split into.
        scale: The factor.
        first: Gives the frames that the projections read.
        weights: Those of q, k and v, scaled; or of all three at once.
        fire: The neuron after each of them.
        proj: Reads the mixture.
    """

    def __init__(
        self,
        num_heads: int,
        scale: float,
        first: BinaryFrames,
        weights: list[nn.Module],
        fire: list[BinaryFrames],
        proj: UnrolledSpikeLayer,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = scale
        self.first = first
        self.weights = nn.ModuleList(weights)
        self.fire = nn.ModuleList(fire)
        self.proj = proj
        self.mark(first.form)

    @property
    def levels(self) -> list[int]:
        """D of q, k and v."""
        return [fire.frames for fire in self.fire] * (3 if len(self.fire) == 1 else 1)

    @property
    def products(self) -> tuple[int, ...]:
        """See :class:`mmspike.neurons.TakenApart`: of all pairs of k and v, then of q."""
        q, k, v = self.levels
        return (k * v,) * (k * v) + (q,) * q

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        frames = self.first(x_seq)  # [T * D, B, C, H, W]
        qkv = [
            fire(add_up(per_step(weights, frames), self.first.frames))
            for weights, fire in zip(self.weights, self.fire, strict=True)
        ]
        q, k, v = qkv if len(qkv) > 1 else qkv[0].chunk(3, dim=2)
        return self.proj(self.mix(q, k, v))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``scale`` times the sum over frames of ``q_i (k_j^T v_l)``, head by head.

        Args:
            q: Frames ``[T * D, B, C, H, W]``.
            k: As ``q``.
            v: ``[T * D, B, C', H, W]``.

        Returns:
            ``[T, B, C', H, W]``.
        """
        size, dtype = q.shape[-2:], q.dtype
        exact = torch.promote_types(dtype, torch.float32)  # sums outgrow half precision
        # [T * D, B, C, H, W] to D times [T, B, heads, C / heads, H * W]
        qs, ks, vs = (
            x.to(exact)
            .flatten(3)
            .unflatten(2, (self.num_heads, -1))
            .unflatten(0, (-1, d))
            .unbind(1)
            for x, d in zip((q, k, v), self.levels, strict=True)
        )
        with torch.autocast(q.device.type, enabled=False):
            kv = sum(k_j @ v_l.transpose(-2, -1) for k_j in ks for v_l in vs)
            out = sum(kv.transpose(-2, -1) @ q_i for q_i in qs) * self.scale
        return out.clamp(max=torch.finfo(dtype).max).to(dtype).flatten(2, 3).unflatten(3, size)
