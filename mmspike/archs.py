"""The published sizes of the backbones, as data."""

from __future__ import annotations

from typing import NamedTuple

META_SPIKEFORMER_DEPTHS = (1, 1, 2, 6, 2)
"""Blocks in the stem and the four stages of every published model."""
PUBLISHED_HEADS = 8
"""Attention heads of every published model."""
PUBLISHED_NAMES = {"T": "time_steps"}
"""Arguments that the published backbones call otherwise, and their names here."""


class Arch(NamedTuple):
    """Size of a Meta-SpikeFormer or an E-SpikeFormer.

    Attributes:
        embed_dims: Widths of the four stages; the stem has half the first.
        num_heads: Attention heads in the last two stages.
        depths: Blocks in the stem and the four stages.
    """

    embed_dims: tuple[int, int, int, int]
    num_heads: int
    depths: tuple[int, int, int, int, int] = META_SPIKEFORMER_DEPTHS


META_SPIKEFORMER: dict[str, Arch] = {
    "15M": Arch(embed_dims=(64, 128, 256, 360), num_heads=8, depths=(1, 1, 2, 6, 2)),
    "31M": Arch(embed_dims=(96, 192, 384, 480), num_heads=8, depths=(1, 1, 2, 6, 2)),
    "55M": Arch(embed_dims=(128, 256, 512, 640), num_heads=8, depths=(1, 1, 2, 6, 2)),
}
"""Named by their parameters with a classifier of 1000 classes."""

E_SPIKEFORMER: dict[str, Arch] = {
    "5M": Arch(embed_dims=(32, 64, 128, 192), num_heads=8, depths=(1, 1, 2, 6, 2)),
    "10M": Arch(embed_dims=(48, 96, 192, 240), num_heads=8, depths=(1, 1, 2, 6, 2)),
    "19M": Arch(embed_dims=(64, 128, 256, 360), num_heads=8, depths=(1, 1, 2, 6, 2)),
}
"""Named as :data:`META_SPIKEFORMER`."""
