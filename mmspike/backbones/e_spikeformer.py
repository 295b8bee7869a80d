"""E-SpikeFormer, the backbone of "Spike-driven Transformer V3" (T-PAMI 2025, arXiv 2411.16061).

"Scaling Spike-driven Transformer with Efficient Spike Firing Approximation Training", its base
models of 5M, 10M and 19M. Exact to the published checkpoints, in evaluation and in training, but
that stochastic depth is really applied, and that norms start as those of Meta-SpikeFormer do.
Stages, downsampling and channel MLPs are those of Meta-SpikeFormer; neurons fire integers, every
weight layer but the first reads spikes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmspike.archs import E_SPIKEFORMER
from mmspike.backbones.arguments import (
    check_arguments,
    read_arch,
    read_attn_scale,
    read_init_pixels,
)
from mmspike.backbones.blocks import Block, ChannelMLP
from mmspike.backbones.spikeformer import (
    ATTN_STRIDE,
    CONV_STAGES,
    SpikeFormer,
    build_stages,
    widths_of,
)
from mmspike.layers.conv import (
    ONE_SIGMA_RATE,
    SpikeLayer,
    build_norm,
    run_layers,
    spike_conv,
)
from mmspike.layers.efficient_attention import EfficientSpikeAttention
from mmspike.neurons import IntegerLIF, default_neuron_cfg, neuron_class
from mmspike.registry import MODELS

Cfg = dict[str, Any]

NEURON: Cfg = {"type": "mmspike.IntegerLIF", "levels": 4}
"""The published neuron."""


class SpikeSepConv(nn.Sequential):
    """Separable convolution whose three layers read spikes: 1x1 to 2 C, depthwise, 1x1 back.

    Source: arXiv 2411.16061, section 4.

    Args:
        channels: Input and output channels C.
        kernel_size: Of the depthwise convolution.
        norm_cfg: Config of the norms.
        neuron_cfg: Config of the neurons.
    """

    def __init__(self, channels: int, kernel_size: int, norm_cfg: Cfg, neuron_cfg: Cfg) -> None:
        wide, pad = 2 * channels, kernel_size // 2
        depthwise = nn.Conv2d(wide, wide, kernel_size, padding=pad, groups=wide, bias=False)
        common: Cfg = {"norm_cfg": norm_cfg, "neuron_cfg": neuron_cfg}
        super().__init__(
            spike_conv(channels, wide, **common, init_rate=ONE_SIGMA_RATE),
            SpikeLayer(depthwise, build_norm(norm_cfg, wide), neuron_cfg, ONE_SIGMA_RATE),
            spike_conv(wide, channels, **common),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        return run_layers(self, x)


class TransformerBlock(Block):
    """Three residual branches: a separable 3x3 convolution, attention, and channels."""

    def __init__(self, conv: nn.Module, mixer: nn.Module, mlp: nn.Module, drop_path: float) -> None:
        super().__init__(mixer, mlp, drop_path)
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        return super().forward(x + self.drop_path(self.conv(x)))


@MODELS.register_module()
class ESpikeFormer(SpikeFormer):
    """E-SpikeFormer as a backbone for dense prediction.

    Args:
        arch: ``"5M"``, ``"10M"`` or ``"19M"``, or ``dict(embed_dims=[..4], num_heads=..)``, as in
            :class:`mmspike.MetaSpikeFormer`.
        time_steps: Steps T that the image is shown; not part of a checkpoint.
        in_channels: Channels of the image.
        out_indices: Maps to return, as in :class:`mmspike.MetaSpikeFormer`: 0 the stem (stride 2),
            1 to 4 the stages (4, 8, 16, 16).
        decode: ``None`` returns sequences of membrane potentials, ``"mean"`` their average over
            time, which any ordinary neck or head takes.
        neuron_cfg: Config of the neurons; ``None`` means the model's ``neuron_cfg``, or
            ``dict(type="mmspike.IntegerLIF", levels=4)``. The number of levels is not part of a
            checkpoint: the published ones are for 4.
        attn_init_size: ``(H, W)`` of the images that a training from scratch sees, as in
            :class:`mmspike.MetaSpikeFormer`. ``None`` leaves norms at unit scale, as published.
        attn_scale: Factor of the attention's sums, ``"published"`` or a number. ``None`` averages
            over the pixels instead, for a ``neuron_cfg`` that gives real values.
        norm_cfg: Config of the norms; batch norms only. ``None`` means ``dict(type="BN")``.
        drop_path_rate: Stochastic depth, rising linearly from 0 to this chance at the last block.
        frozen_stages: Stages up to this index take no gradient and no statistics; -1 freezes none,
            0 the stem.
        norm_eval: Whether norms keep their statistics in training.
        with_cp: Whether blocks are checkpointed in training, or of which stages.
        init_cfg: OpenMMLab's initialisation; ``dict(type="Pretrained", checkpoint=FILE_OR_URL)``
            takes published classification checkpoints, ours, and those of whole models.

    Raises:
        TypeError, ValueError: If an argument is none of the above.

    Examples:
        >>> import torch
        >>> arch = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
        >>> model = ESpikeFormer(arch=arch).eval()
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 32, 48))]
        [(1, 1, 16, 8, 12), (1, 1, 16, 4, 6), (1, 1, 24, 2, 3), (1, 1, 32, 2, 3)]
    """

    named_archs = E_SPIKEFORMER

    def __init__(
        self,
        arch: str | Cfg = "10M",
        time_steps: int = 1,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        decode: str | None = None,
        neuron_cfg: Cfg | None = None,
        attn_init_size: tuple[int, int] | None = None,
        attn_scale: float | str | None = "published",
        norm_cfg: Cfg | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool | Sequence[int] = False,
        init_cfg: Cfg | list[Cfg] | None = None,
    ) -> None:
        owner = type(self).__name__
        args = (arch, time_steps, in_channels, out_indices, frozen_stages, drop_path_rate, norm_cfg)
        check_arguments(owner, *args)
        size = read_arch(owner, arch, self.named_archs)
        if attn_scale != "published":
            attn_scale = read_attn_scale(owner, attn_scale)
        default: Any = self.neuron_of(default_neuron_cfg())
        neuron = default if neuron_cfg in (None, {}) else neuron_cfg
        _warn_of_other_neurons(neuron)
        attention: Cfg = {
            "num_heads": size.num_heads,
            "scale": attn_scale,
            "init_pixels": read_init_pixels(owner, attn_init_size, ATTN_STRIDE),
        }
        common: dict[str, Any] = {"norm_cfg": norm_cfg or {"type": "BN"}, "neuron_cfg": neuron}
        widths = widths_of(size)

        def block(stage: int, drop_path: float) -> Block:
            width = widths[stage]
            if stage < CONV_STAGES:
                mlp = ChannelMLP(width, 3, **common)
                return Block(SpikeSepConv(width, 7, **common), mlp, drop_path)
            return TransformerBlock(
                SpikeSepConv(width, 3, **common),
                EfficientSpikeAttention(width, **attention, **common),
                ChannelMLP(width, 1, **common),
                drop_path,
            )

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

    @staticmethod
    def neuron_of(cfg: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """See :class:`mmspike.neurons.protocols.ChoosesNeuron`: the published one, unless told."""
        return cfg or NEURON


def _warn_of_other_neurons(neuron_cfg: Cfg) -> None:
    """Say that neurons are not the published ones: a model may name others for all parts."""
    kind = neuron_class(neuron_cfg)
    if isinstance(kind, type) and issubclass(kind, IntegerLIF):
        return
    name = getattr(kind, "__name__", kind)
    print_log(
        f"ESpikeFormer: its neurons are {name}, by its neuron_cfg or the model's; the published "
        "ones, and checkpoints, are for dict(type='mmspike.IntegerLIF', levels=4)",
        "current",
        level=logging.WARNING,
    )
