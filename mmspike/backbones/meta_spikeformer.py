"""Meta-SpikeFormer, the backbone of "Spike-driven Transformer V2" (ICLR 2024, arXiv 2404.03663).

Exact to the published checkpoints, in evaluation and in training. It deviates in two places: the
stem's first convolution runs once and not T times, since the image is the same at every step (only
the correction of its norm's running variance for the number of samples differs), and stochastic
depth is really applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmspike.archs import META_SPIKEFORMER
from mmspike.backbones.arguments import (
    check_arguments,
    read_arch,
    read_attn_neuron,
    read_attn_scale,
    read_init_pixels,
)
from mmspike.backbones.blocks import Block, ChannelMLP, SepConv
from mmspike.backbones.spikeformer import (
    ATTN_STRIDE,
    CONV_STAGES,
    SpikeFormer,
    build_stages,
    widths_of,
)
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.registry import MODELS


@MODELS.register_module()
class MetaSpikeFormer(SpikeFormer):
    """Meta-SpikeFormer as a backbone for dense prediction.

    Args:
        arch: ``"15M"``, ``"31M"`` or ``"55M"``, or ``dict(embed_dims=[..4], num_heads=..)``: widths
            of the four stages, and heads in the last two; the stem has half the first width. With
            ``depths=[..5]``, blocks in the stem and the four stages.
        time_steps: Steps T that the image is shown; not part of a checkpoint.
        in_channels: Channels of the image.
        out_indices: Maps to return: 0 the stem (stride 2), 1 to 4 the stages (4, 8, 16, 16).
            Stages after the last one are not computed and take no gradient. ``None`` means
            ``(1, 2, 3, 4)``, and with ``decode="mean"`` one map per stride, ``(1, 2, 4)``: ordinary
            necks and anchors take each map for one of twice the stride of the one before. A warning
            tells where that is not so, except in segmentors, whose heads resize what they read.
        decode: ``None`` returns sequences of membrane potentials, ``"mean"`` their average over
            time, which any ordinary neck or head takes.
        neuron_cfg: Config of the neurons, see :func:`mmspike.neurons.build_neuron`; ``None`` means
            the model's ``neuron_cfg``, or ``dict(type="mmspike.LIF")``.
        attn_neuron_cfg: Settings in which the neuron after the attention differs; ``None`` means
            ``dict(v_threshold=0.5)``, or nothing where the neuron has no threshold.
        attn_init_size: Height and width of the images that a training from scratch sees: q, k and v
            then start at the rate at which the attention, which sums over the image, neither is
            silent nor saturates. ``None`` leaves their norms at unit scale, as published.
        attn_scale: Factor of the attention's sums of spikes; 0.125 is the published one. ``None``
            averages over the pixels instead, as an ordinary network does: for a ``neuron_cfg`` that
            gives real values, such as ``dict(type="ReLU")``.
        norm_cfg: Config of the norms; batch norms only. ``None`` means ``dict(type="BN")``.
        drop_path_rate: Stochastic depth, rising linearly from 0 to this chance at the last block.
        frozen_stages: Stages up to this index take no gradient and no statistics; -1 freezes none,
            0 the stem.
        norm_eval: Whether norms keep their statistics in training.
        with_cp: Whether blocks are checkpointed in training: less memory, one forward more. A
            sequence of stages, 0 (the stem) to 4, checkpoints their blocks alone: ``(0, 1)`` those
            with the largest maps.
        init_cfg: OpenMMLab's initialisation; ``dict(type="Pretrained", checkpoint=FILE_OR_URL)``
            takes published classification checkpoints, ours, and those of whole models.

    Raises:
        TypeError: If ``neuron_cfg`` or ``attn_neuron_cfg`` is no config, or ``norm_eval`` no bool.
        ValueError: If the architecture, an index, ``decode``, ``time_steps``, ``attn_neuron_cfg``,
            ``attn_init_size``, ``attn_scale``, ``frozen_stages``, ``drop_path_rate``, ``norm_cfg``
            or ``with_cp`` is not one of the above.

    Examples:
        >>> import torch
        >>> arch = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
        >>> model = MetaSpikeFormer(arch=arch, time_steps=2).eval()
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 32, 48))]
        [(2, 1, 16, 8, 12), (2, 1, 16, 4, 6), (2, 1, 24, 2, 3), (2, 1, 32, 2, 3)]
    """

    named_archs = META_SPIKEFORMER

    def __init__(
        self,
        arch: str | dict[str, Any] = "15M",
        time_steps: int = 1,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        decode: str | None = None,
        neuron_cfg: dict[str, Any] | None = None,
        attn_neuron_cfg: dict[str, Any] | None = None,
        attn_init_size: tuple[int, int] | None = None,
        attn_scale: float | None = 0.125,
        norm_cfg: dict[str, Any] | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool | Sequence[int] = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        owner = type(self).__name__
        args = (arch, time_steps, in_channels, out_indices, frozen_stages, drop_path_rate, norm_cfg)
        check_arguments(owner, *args)
        size = read_arch(owner, arch, self.named_archs)
        attention: dict[str, Any] = {
            "num_heads": size.num_heads,
            "attn_neuron_cfg": read_attn_neuron(owner, attn_neuron_cfg, neuron_cfg),
            "init_pixels": read_init_pixels(owner, attn_init_size, ATTN_STRIDE),
            "scale": read_attn_scale(owner, attn_scale),
        }
        common: dict[str, Any] = {"norm_cfg": norm_cfg or {"type": "BN"}, "neuron_cfg": neuron_cfg}
        widths = widths_of(size)

        def block(stage: int, drop_path: float) -> Block:
            width, conv = widths[stage], stage < CONV_STAGES
            if conv:
                mixer: nn.Module = SepConv(width, **common)
            else:
                mixer = SpikeDrivenSelfAttention(width, **attention, **common)
            return Block(mixer, ChannelMLP(width, 3 if conv else 1, **common), drop_path)

        super().__init__(
            build_stages(size, time_steps, in_channels, block, drop_path_rate, **common),
            size,
            out_indices,
            decode,
            frozen_stages,
            norm_eval,
            with_cp,
            init_cfg,
            {"attn_scale": attn_scale},
        )
