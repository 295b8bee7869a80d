"""Meta-SpikeFormer, the backbone of "Spike-driven Transformer V2" (ICLR 2024, arXiv 2404.03663).

Exact to the published checkpoints, in evaluation and in training. It deviates in two places: the
stem's first convolution runs once and not T times, since the image is the same at every step (only
the correction of its norm's running variance for the number of samples differs), and stochastic
depth is really applied.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike import fused
from mmspike.archs import META_SPIKEFORMER, META_SPIKEFORMER_DEPTHS, Arch
from mmspike.backbones.arguments import check_arguments
from mmspike.checkpoints.loading import init_weights
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.checks import is_doubling
from mmspike.layers.conv import (
    ONE_SIGMA_RATE,
    SpikeLayer,
    build_norm,
    spike_conv,
    spread_biases,
)
from mmspike.layers.drop import DropPath
from mmspike.layers.rep_conv import DepthwisePointwise
from mmspike.layers.time import mean_over_time, repeat_over_time
from mmspike.neurons import build_neuron, neuron_takes
from mmspike.registry import MODELS

STRIDES = (2, 2, 2, 2, 1)
"""Stride of the downsampling of the stem and the four stages: the last one keeps its resolution."""
ATTN_STRIDE = 16
"""Stride of the maps of both stages with attention."""
CONV_STAGES = 3
"""The stem and the first two stages have convolutional blocks; those after have attention."""


class SepConv(nn.Sequential):
    """Inverted separable convolution: 1x1 to twice the channels, depthwise 7x7, 1x1 back.

    Source: arXiv 2404.03663, section 3.2.

    Args:
        channels: Input and output channels.
        norm_cfg: Config of the norms.
        neuron_cfg: Config of the neurons.
    """

    def __init__(
        self, channels: int, norm_cfg: dict[str, Any], neuron_cfg: dict[str, Any] | None
    ) -> None:
        common = {"norm_cfg": norm_cfg, "neuron_cfg": neuron_cfg}
        wide = 2 * channels
        super().__init__(
            spike_conv(channels, wide, 1, init_rate=ONE_SIGMA_RATE, **common),
            SpikeLayer(
                DepthwisePointwise(wide, channels, 7), build_norm(norm_cfg, channels), neuron_cfg
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        y = fused.run(self, x)
        if y is not None:
            return y
        widen, separable = self
        x = widen(x)  # [T, B, 2 C, H, W]
        return separable(x)  # [T, B, C, H, W]


class ChannelMLP(nn.Sequential):
    """Two spiking convolutions with four times the channels between them.

    Args:
        channels: Input and output channels.
        kernel_size: 3 without bias in a convolutional block, 1 with bias after attention.
        norm_cfg: Config of the norms.
        neuron_cfg: Config of the neurons.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        norm_cfg: dict[str, Any],
        neuron_cfg: dict[str, Any] | None,
    ) -> None:
        common = {"bias": kernel_size == 1, "norm_cfg": norm_cfg, "neuron_cfg": neuron_cfg}
        super().__init__(
            spike_conv(channels, 4 * channels, kernel_size, init_rate=ONE_SIGMA_RATE, **common),
            spike_conv(4 * channels, channels, kernel_size, **common),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        y = fused.run(self, x)
        if y is not None:
            return y
        widen, narrow = self
        x = widen(x)  # [T, B, 4 C, H, W]
        return narrow(x)  # [T, B, C, H, W]


class Block(nn.Module):
    """Two residual branches on membrane potentials: one mixes pixels, one mixes channels."""

    def __init__(self, mixer: nn.Module, mlp: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
        x = x + self.drop_path(self.mixer(x))
        return x + self.drop_path(self.mlp(x))


class Stage(nn.Module):
    """Downsampling, then blocks of one width."""

    def __init__(self, downsample: SpikeLayer, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, with_cp: bool = False) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C', H', W']``.

        Args:
            x: Membrane potentials.
            with_cp: Whether each block is checkpointed.
        """
        return self.run_blocks(self.downsample(x), with_cp)

    def run_blocks(self, x: Tensor, with_cp: bool) -> Tensor:
        """Run the blocks alone."""
        for block in self.blocks:
            x = fused.checkpointed(block, x) if with_cp else block(x)
        return x


class Stem(Stage):
    """The first stage, which reads the image: a convolution without a neuron before it.

    The image is the same at every step, and so is what the convolution makes of it.
    """

    def __init__(self, downsample: SpikeLayer, blocks: Sequence[Block], time_steps: int) -> None:
        super().__init__(downsample, blocks)
        self.time_steps = time_steps

    def forward(self, img: Tensor, with_cp: bool = False) -> Tensor:
        """Map images ``[B, C, H, W]`` to ``[T, B, C', H', W']``; see :meth:`Stage.forward`."""
        x = self.downsample(img.unsqueeze(0))  # [1, B, C', H', W']
        return self.run_blocks(repeat_over_time(x.squeeze(0), self.time_steps), with_cp)


@MODELS.register_module()
class MetaSpikeFormer(BaseModule):
    """Meta-SpikeFormer as a backbone for dense prediction.

    Args:
        arch: ``"15M"``, ``"31M"`` or ``"55M"``, or ``dict(embed_dims=[..4], num_heads=..)``: widths
            of the four stages, and heads in the last two; the stem has half the first width. With
            ``depths=[..5]``, blocks in the stem and the four stages.
        time_steps: Steps T that the image is shown; not part of a checkpoint.
        in_channels: Channels of the image.
        out_indices: Maps to return: 0 the stem (stride 2), 1 to 4 the stages (4, 8, 16, 16).
            Stages behind the last one are not computed and take no gradient. ``None`` means
            ``(1, 2, 3, 4)``, and with ``decode="mean"`` one map per stride, ``(1, 2, 4)``: ordinary
            necks and anchors take each map for one of twice the stride of the one before. A warning
            tells where that is not so, except in segmentors, whose heads resize what they read.
        decode: ``None`` returns sequences of membrane potentials, ``"mean"`` their average over
            time, which any ordinary neck or head takes.
        neuron_cfg: Config of the neurons, see :func:`mmspike.neurons.build_neuron`; ``None`` means
            the model's ``neuron_cfg``, or ``dict(type="mmspike.LIF")``.
        attn_neuron_cfg: What the neuron behind the attention has different; ``None`` means
            ``dict(v_threshold=0.5)``, or nothing where the neuron has no threshold.
        attn_init_size: Height and width of the images that a training from scratch sees: q, k and v
            then start at the rate at which the attention, which sums over the image, neither is
            silent nor saturates. ``None`` leaves their norms at unit scale, as published.
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
            ``attn_init_size``, ``frozen_stages``, ``drop_path_rate``, ``norm_cfg`` or ``with_cp``
            is not one of the above.

    Example:
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
        norm_cfg: dict[str, Any] | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool | Sequence[int] = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_arguments(arch, in_channels, out_indices, frozen_stages, drop_path_rate, norm_cfg)
        size = _read_arch(arch)
        self.depths = size.depths
        ok = type(time_steps) is int and time_steps >= 1
        _check("time_steps", time_steps, ok, "a whole number of at least 1")
        self.decode = _check("decode", decode, decode in (None, "mean"), "None or 'mean'")
        if out_indices is None:
            out_indices = (1, 2, 4) if decode else (1, 2, 3, 4)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        attn_neuron_cfg = _read_attn_neuron(attn_neuron_cfg, neuron_cfg)
        init_pixels = None
        if attn_init_size is not None:
            sizes = attn_init_size if isinstance(attn_init_size, list | tuple) else ()
            ok = len(sizes) == 2 and all(type(n) is int and n > 0 for n in sizes)
            _check("attn_init_size", attn_init_size, ok, "None or (height, width)")
            init_pixels = math.prod(math.ceil(n / ATTN_STRIDE) for n in attn_init_size)
        self.norm_eval = norm_eval
        self.stages_with_cp = _read_with_cp(with_cp)
        self.stages = _build_stages(
            size,
            time_steps,
            in_channels,
            drop_path_rate,
            neuron_cfg,
            {"attn_neuron_cfg": attn_neuron_cfg, "init_pixels": init_pixels},
            norm_cfg or {"type": "BN"},
        )
        self.out_channels = [_widths(size)[i] for i in self.out_indices]
        strides = list(accumulate(STRIDES, lambda a, b: a * b))
        self.out_strides = [strides[i] for i in self.out_indices]
        if decode is not None and not is_doubling(self.out_strides):
            _warn_of_strides(self.out_indices, self.out_strides)
        self._freeze()

    @property
    def time_steps(self) -> int:
        """Steps T in which the network sees an image."""
        return self.stages[0].time_steps

    @time_steps.setter
    def time_steps(self, value: int) -> None:
        self.stages[0].time_steps = value

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
            outs[i] = mean_over_time(x) if self.decode == "mean" else x
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
            prefix: What stands in front of the backbone's own names.

        Returns:
            Its layer, and the number of layers: the image's convolution is 0, the twelve blocks are
            1 to 12 (a downsampling counts with the block behind it), and the last, 13, is for what
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


def _check(name: str, value: Any, ok: bool, expected: str) -> Any:
    if not ok:
        raise ValueError(f"MetaSpikeFormer: {name} must be {expected}, got {value!r}")
    return value


def _warn_of_strides(indices: tuple[int, ...], strides: list[int]) -> None:
    scope = DefaultScope.get_current_instance()
    if scope is not None and scope.scope_name == "mmseg":  # whose heads resize what they read
        return
    print_log(
        f"MetaSpikeFormer: out_indices={indices} give maps of strides {strides}. An ordinary neck, "
        "such as mmdet's FPN, takes each for twice the stride of the one before, and its levels do "
        "not lie where the anchors of RetinaNet, Faster R-CNN or Cascade R-CNN are; "
        "out_indices=(1, 2, 4) gives strides 4, 8, 16",
        "current",
        level=logging.WARNING,
    )


def _read_attn_neuron(
    change: dict[str, Any] | None, neuron_cfg: dict[str, Any] | None
) -> dict[str, Any]:
    """What the neuron behind the attention has different."""
    if change is None:
        return {"v_threshold": 0.5} if neuron_takes(neuron_cfg, "v_threshold") else {}
    of = change if "type" in change else neuron_cfg
    for name in set(change) - {"type"}:
        ok = neuron_takes(of, name)
        _check("attn_neuron_cfg", change, ok, f"what the neuron takes, which has no {name!r}")
    return change


def _read_arch(arch: str | dict[str, Any]) -> Arch:
    """The size that ``arch`` names."""
    keys = {"embed_dims", "num_heads"}
    if isinstance(arch, dict) and keys <= set(arch) <= {*keys, "depths"}:
        read = Arch(**{**arch, "embed_dims": tuple(arch["embed_dims"])})
    else:
        read = META_SPIKEFORMER.get(arch) if isinstance(arch, str) else None
    expected = (
        f"one of {sorted(META_SPIKEFORMER)} or dict(embed_dims=[4 widths], num_heads=..., "
        f"depths={META_SPIKEFORMER_DEPTHS})"
    )
    ok = read is not None and len(read.embed_dims) == 4 and len(read.depths) == len(STRIDES)
    _check("arch", arch, ok, expected)
    _check(
        "arch", arch, read.embed_dims[0] % 2 == 0, "of an even first width, which the stem halves"
    )
    return read


def _read_with_cp(with_cp: bool | Sequence[int]) -> frozenset[int]:
    """The stages whose blocks are checkpointed."""
    if isinstance(with_cp, bool):
        return frozenset(range(len(STRIDES)) if with_cp else ())
    ok = isinstance(with_cp, Sequence) and all(
        type(i) is int and 0 <= i < len(STRIDES) for i in with_cp
    )
    _check("with_cp", with_cp, ok, "a bool, or a sequence of stages from 0 (the stem) to 4")
    return frozenset(with_cp)


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
    common = {"norm_cfg": norm_cfg, "neuron_cfg": neuron_cfg}
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
        options = {"stride": stride, "bias": True, "norm_cfg": norm_cfg}
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
