"""What a Meta-SpikeFormer is made of: convolutional mixer, channel MLP, blocks, stages, the stem.

Source: "Spike-driven Transformer V2" (arXiv 2404.03663), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmspike import fused
from mmspike.layers.conv import ONE_SIGMA_RATE, SpikeLayer, build_norm, spike_conv
from mmspike.layers.drop import DropPath
from mmspike.layers.rep_conv import DepthwisePointwise
from mmspike.layers.time import repeat_over_time


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
        common: dict[str, Any] = {"norm_cfg": norm_cfg, "neuron_cfg": neuron_cfg}
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
        common: dict[str, Any] = {
            "bias": kernel_size == 1,
            "norm_cfg": norm_cfg,
            "neuron_cfg": neuron_cfg,
        }
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
        """Map images ``[B, C, H, W]`` to ``[T, B, C', H', W']``; see :meth:`Stage.forward`.

        Images ``[T, B, C, H, W]`` differ from step to step.
        """
        if img.dim() == 5:
            return super().forward(img, with_cp)
        x = self.downsample(img.unsqueeze(0))  # [1, B, C', H', W']
        return self.run_blocks(repeat_over_time(x.squeeze(0), self.time_steps), with_cp)
