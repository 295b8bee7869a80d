"""What the spiking transformers have in common: stages, what is given of them, training.

A stem and four stages at strides 2, 4, 8, 16 and 16: the first three of convolutional blocks, the
last two with attention. Everything is shared but the blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, count
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike import fused
from mmspike.archs import Arch
from mmspike.backbones.arguments import read_with_cp, warn_of_strides
from mmspike.backbones.blocks import Block, Stage, Stem
from mmspike.backbones.settings import settings_of
from mmspike.checkpoints.init import init_weights
from mmspike.layers.arguments import refuse_unless
from mmspike.layers.checks import is_doubling
from mmspike.layers.conv import ONE_SIGMA_RATE, SpikeLayer, spike_conv, spread_biases
from mmspike.layers.init_log import InitLog
from mmspike.layers.time import ordinary_map
from mmspike.neurons import build_neuron
from mmspike.neurons.arguments import check_flag

STRIDES = (2, 2, 2, 2, 1)
"""Stride of the downsampling of the stem and the four stages: the last one keeps its resolution."""
ATTN_STRIDE = 16
"""Stride of the maps of both stages with attention."""
CONV_STAGES = 3
"""The stem and the first two stages have convolutional blocks; those after have attention."""


def widths_of(arch: Arch) -> tuple[int, ...]:
    """Widths of the stem and the four stages."""
    return (arch.embed_dims[0] // 2, *arch.embed_dims)


def build_stages(
    arch: Arch,
    time_steps: int,
    in_channels: int,
    block: Callable[[int, float], Block],
    drop_path_rate: float,
    norm_cfg: dict[str, Any],
    neuron_cfg: dict[str, Any] | None,
) -> nn.ModuleList:
    """Build the stem and the four stages.

    Args:
        arch: Their widths and depths.
        time_steps: Steps T that the image is shown.
        in_channels: Channels of the image.
        block: Builds a block, from the stage's number and its chance to be dropped.
        drop_path_rate: That of the last block; it rises linearly from 0.
        norm_cfg: Config of the norms of the layers before the blocks.
        neuron_cfg: Config of the neurons of the same; the stem's reads the image and has none.
    """
    widths = (in_channels, *widths_of(arch))
    last = max(1, sum(arch.depths) - 1)
    rates = (drop_path_rate * i / last for i in count())
    stages = nn.ModuleList()
    for i, depth in enumerate(arch.depths):
        down = _downsampling(i, widths, norm_cfg, neuron_cfg)
        blocks = [block(i, next(rates)) for _ in range(depth)]
        stages.append(Stage(down, blocks) if i else Stem(down, blocks, time_steps))
    return stages


def _downsampling(
    stage: int, widths: Sequence[int], norm_cfg: dict[str, Any], neuron_cfg: dict[str, Any] | None
) -> SpikeLayer:
    """The layer before a stage's blocks; the stem's reads the image, without a neuron."""
    sizes = widths[stage], widths[stage + 1], 3 if stage else 7
    options: dict[str, Any] = {"stride": STRIDES[stage], "bias": True, "norm_cfg": norm_cfg}
    if stage:
        return spike_conv(*sizes, neuron_cfg=neuron_cfg, init_rate=ONE_SIGMA_RATE, **options)
    layer = spike_conv(*sizes, neuron_cfg=False, **options)
    spread_biases(layer.norm, build_neuron(neuron_cfg))
    return layer


class SpikeFormer(InitLog):
    """Stages in a row, as a backbone for dense prediction; see :class:`mmspike.MetaSpikeFormer`.

    Args:
        stages: The stem and the four stages.
        arch: Their widths and depths.
        out_indices: Maps to return.
        decode: ``None`` or ``"mean"``.
        frozen_stages: Stages up to this index take no gradient and no statistics.
        norm_eval: Whether norms keep their statistics in training.
        with_cp: Whether, or of which stages, blocks are checkpointed in training.
        init_cfg: OpenMMLab's initialisation.
        attn_settings: What the attention computes with beside weights, by the names of arguments.

    Raises:
        TypeError, ValueError: If an argument is none of these.
    """

    named_archs: Mapping[str, Arch] = {}

    def __init__(
        self,
        stages: nn.ModuleList,
        arch: Arch,
        out_indices: Sequence[int] | None,
        decode: str | None,
        frozen_stages: int,
        norm_eval: bool,
        with_cp: bool | Sequence[int],
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None,
        attn_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        owner = type(self).__name__
        refuse_unless(decode in (None, "mean"), owner, "decode", "None or 'mean'", decode)
        check_flag(f"{owner}: norm_eval", norm_eval)
        self.decode = decode
        self.depths = arch.depths
        self.num_heads = arch.num_heads
        self.attn_settings = dict(attn_settings or {})
        if out_indices is None:
            out_indices = (1, 2, 4) if decode else (1, 2, 3, 4)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.stages_with_cp = read_with_cp(owner, with_cp, len(STRIDES))
        self.stages = stages
        self.out_channels = [widths_of(arch)[i] for i in self.out_indices]
        strides = list(accumulate(STRIDES, lambda a, b: a * b))
        self.out_strides = [strides[i] for i in self.out_indices]
        if decode is not None and not is_doubling(self.out_strides):
            warn_of_strides(owner, self.out_indices, self.out_strides)
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

    def beside_weights(self, cfg: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """See :class:`mmspike.neurons.protocols.Configured`."""
        if cfg is not None:
            return settings_of(type(self), self.named_archs, cfg)
        own = {"time_steps": self.time_steps, "num_heads": self.num_heads}
        return own | self.attn_settings

    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps of membrane potentials.

        Args:
            img: Normalised images, ``[B, C, H, W]``, shown at every step; or one for each step,
                ``[T, B, C, H, W]``, such as frames of events. Any height and width.

        Returns:
            One map per entry of ``out_indices``: ``[T, B, C', H', W']``, or ``[B, C', H', W']``
            with ``decode="mean"``. A map of stride s has ``ceil(H / s)`` rows.

        Raises:
            ValueError: If ``img`` has neither four axes nor five, T first.
        """
        if img.dim() != 4 and (img.dim() != 5 or img.size(0) != self.time_steps):
            raise ValueError(
                f"{type(self).__name__} takes [B, C, H, W], or [{self.time_steps}, B, C, H, W] for "
                f"its {self.time_steps} time steps; got shape {tuple(img.shape)}"
            )
        x = fused.in_fastest_format(img)
        outs = {}
        for i, stage in enumerate(self.stages[: max(self.out_indices) + 1]):
            with_cp = i in self.stages_with_cp and self.training and i > self.frozen_stages
            x = stage(x, with_cp)
            outs[i] = ordinary_map(x) if self.decode == "mean" else x
        return tuple(outs[i] for i in self.out_indices)

    def train(self, mode: bool = True) -> SpikeFormer:
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
            raise ValueError(f"{type(self).__name__} has no parameter {param_name!r}")
        stage, block = int(match[1]), match[2]
        first = 1 + sum(self.depths[:stage])
        depth = 0 if stage == 0 and block is None else first + int(block or 0)
        return depth, sum(self.depths) + 2

    def _freeze(self) -> None:
        for stage in self.stages[: self.frozen_stages + 1]:
            stage.eval().requires_grad_(False)
        for stage in self.stages[max(self.out_indices) + 1 :]:  # which nothing reads
            stage.eval().requires_grad_(False)
