"""Meta-SpikeFormer, the backbone of "Spike-driven Transformer V2" (ICLR 2024, arXiv 2404.03663).

Exact to the published checkpoints, in evaluation and in training. It deviates in two places: the
stem's first convolution runs once and not T times, since the image is the same at every step (only
the correction of its norm's running variance for the number of samples differs), and stochastic
depth is really applied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike import fused
from mmspike.archs import Arch
from mmspike.backbones.arguments import (
    check,
    check_arguments,
    read_arch,
    read_attn_neuron,
    read_attn_scale,
    read_init_pixels,
    read_with_cp,
    warn_of_strides,
)
from mmspike.backbones.blocks import Block, ChannelMLP, SepConv, Stage, Stem
from mmspike.checkpoints.loading import init_weights
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.checks import is_doubling
from mmspike.layers.conv import ONE_SIGMA_RATE, spike_conv, spread_biases
from mmspike.layers.init_log import InitLog
from mmspike.layers.time import ordinary_map
from mmspike.neurons import build_neuron
from mmspike.registry import MODELS

STRIDES = (2, 2, 2, 2, 1)
"""Stride of the downsampling of the stem and the four stages: the last one keeps its resolution."""
ATTN_STRIDE = 16
"""Stride of the maps of both stages with attention."""
CONV_STAGES = 3
"""The stem and the first two stages have convolutional blocks; those after have attention."""


@MODELS.register_module()
class MetaSpikeFormer(InitLog):
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
        super().__init__(init_cfg=init_cfg)
        check_arguments(arch, in_channels, out_indices, frozen_stages, drop_path_rate, norm_cfg)
        size = read_arch(arch, len(STRIDES))
        self.depths = size.depths
        ok = type(time_steps) is int and time_steps >= 1
        check("time_steps", time_steps, ok, "a whole number of at least 1")
        self.decode = check("decode", decode, decode in (None, "mean"), "None or 'mean'")
        if out_indices is None:
            out_indices = (1, 2, 4) if decode else (1, 2, 3, 4)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        attn_neuron_cfg = read_attn_neuron(attn_neuron_cfg, neuron_cfg)
        init_pixels = read_init_pixels(attn_init_size, ATTN_STRIDE)
        self.norm_eval = norm_eval
        self.stages_with_cp = read_with_cp(with_cp, len(STRIDES))
        self.stages = _build_stages(
            size,
            time_steps,
            in_channels,
            drop_path_rate,
            neuron_cfg,
            {
                "attn_neuron_cfg": attn_neuron_cfg,
                "init_pixels": init_pixels,
                "scale": read_attn_scale(attn_scale),
            },
            norm_cfg or {"type": "BN"},
        )
        self.out_channels = [_widths(size)[i] for i in self.out_indices]
        strides = list(accumulate(STRIDES, lambda a, b: a * b))
        self.out_strides = [strides[i] for i in self.out_indices]
        if decode is not None and not is_doubling(self.out_strides):
            warn_of_strides(self.out_indices, self.out_strides)
        self._freeze()

    @property
    def time_steps(self) -> int:
        """Steps T in which the network sees an image."""
        return self.stages[0].time_steps

    @time_steps.setter
    def time_steps(self, value: int) -> None:
        self.stages[0].time_steps = value

    @property
    def gives_sequences(self) -> bool:
        """Whether maps have a time axis, ``[T, B, C, H, W]``."""
        return self.decode is None

    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps of membrane potentials.

        Args:
            img: Normalised images, ``[B, C, H, W]``; any height and width.

        Returns:
            One map per entry of ``out_indices``: ``[T, B, C', H', W']``, or ``[B, C', H', W']``
            with ``decode="mean"``. A map of stride s has ``ceil(H / s)`` rows.

        Raises:
            ValueError: If ``img`` has not four axes.
        """
        if img.dim() != 4:
            raise ValueError(f"MetaSpikeFormer takes [B, C, H, W], got shape {tuple(img.shape)}")
        x = fused.in_fastest_format(img)
        outs = {}
        for i, stage in enumerate(self.stages[: max(self.out_indices) + 1]):
            with_cp = i in self.stages_with_cp and self.training and i > self.frozen_stages
            x = stage(x, with_cp)
            outs[i] = ordinary_map(x) if self.decode == "mean" else x
        return tuple(outs[i] for i in self.out_indices)

    def train(self, mode: bool = True) -> MetaSpikeFormer:
        """Switch mode; frozen stages, and norms with ``norm_eval``, stay in evaluation."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for m in self.modules():
                if isinstance(m, _BatchNorm):
                    m.eval()
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile in place, as ``nn.Module.compile``, but block by block.

        Blocks of a stage share a graph. In one graph of the whole, sizes that are halved again and
        again become expressions that ``dynamic=True`` takes many minutes over.
        """
        for stage in self.stages:
            for module in (stage.downsample, *stage.blocks):
                module.compile(*args, **kwargs)

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says.

        ``type="Pretrained"`` comes last and takes any checkpoint with a Meta-SpikeFormer in it, see
        :func:`mmspike.checkpoints.load_pretrained`.

        Raises:
            CheckpointError: If a pretrained checkpoint cannot be read or does not fit.
        """
        init_weights(self, super().init_weights)

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Tell the layer that a parameter belongs to, for layer-wise learning rates.

        Args:
            param_name: Name of the parameter.
            prefix: What the names begin with, before the backbone's own.

        Returns:
            Its layer, and the number of layers: the image's convolution is 0, the twelve blocks are
            1 to 12 (a downsampling counts with the block after it), and the last, 13, is for what
            follows the backbone.

        Raises:
            ValueError: If it is not a name of the backbone's.
        """
        match = re.fullmatch(
            r"stages\.(\d+)\.(?:downsample|blocks\.(\d+))\..+", param_name.removeprefix(prefix)
        )
        if match is None:
            raise ValueError(f"MetaSpikeFormer has no parameter {param_name!r}")
        stage, block = int(match[1]), match[2]
        first = 1 + sum(self.depths[:stage])
        depth = 0 if stage == 0 and block is None else first + int(block or 0)
        return depth, sum(self.depths) + 2

    def _freeze(self) -> None:
        for stage in self.stages[: self.frozen_stages + 1]:
            stage.eval().requires_grad_(False)
        for stage in self.stages[max(self.out_indices) + 1 :]:  # which nothing reads
            stage.eval().requires_grad_(False)


def _build_stages(
    arch: Arch,
    time_steps: int,
    in_channels: int,
    drop_path_rate: float,
    neuron_cfg: dict[str, Any] | None,
    attention: dict[str, Any],
    norm_cfg: dict[str, Any],
) -> nn.ModuleList:
    """Build the stem and the four stages."""
    common: dict[str, Any] = {"norm_cfg": norm_cfg, "neuron_cfg": neuron_cfg}
    widths = _widths(arch)

    def block(stage: int, index: int) -> Block:
        width, conv = widths[stage], stage < CONV_STAGES
        if conv:
            mixer: nn.Module = SepConv(width, **common)
        else:
            mixer = SpikeDrivenSelfAttention(width, arch.num_heads, **attention, **common)
        drop = drop_path_rate * index / max(1, sum(arch.depths) - 1)
        return Block(mixer, ChannelMLP(width, 3 if conv else 1, **common), drop)

    stages = nn.ModuleList()
    index = 0
    for i, (width, stride, depth) in enumerate(zip(widths, STRIDES, arch.depths, strict=True)):
        options: dict[str, Any] = {"stride": stride, "bias": True, "norm_cfg": norm_cfg}
        if i == 0:
            down = spike_conv(in_channels, width, 7, neuron_cfg=False, **options)
            spread_biases(down.norm, build_neuron(neuron_cfg))
        else:
            options |= {"neuron_cfg": neuron_cfg, "init_rate": ONE_SIGMA_RATE}
            down = spike_conv(widths[i - 1], width, 3, **options)
        blocks = [block(i, index + j) for j in range(depth)]
        stages.append(Stage(down, blocks) if i else Stem(down, blocks, time_steps))
        index += depth
    return stages


def _widths(arch: Arch) -> tuple[int, ...]:
    """Widths of the stem and the four stages."""
    return (arch.embed_dims[0] // 2, *arch.embed_dims)
