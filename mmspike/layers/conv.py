"""Weight layers that read spikes: neuron, weights, normalisation; and RepConv."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike.layers.event_driven import PackedSpikes, convolve, is_watched
from mmspike.layers.firing import convolve_norm_and_fire, fire, norm_and_fire
from mmspike.layers.forms import Deployable
from mmspike.layers.memory import format_of, saving
from mmspike.layers.norm import normalise
from mmspike.layers.time import per_step
from mmspike.neurons import build_neuron


class ConvShape(NamedTuple):
    """What decides how many outputs an input of a convolution reaches.

    A module that is one convolution, however it is computed, says so by a method
    ``as_convolution() -> ConvShape``, by which counters count it.
    """

    weight: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int] = (1, 1)
    transposed: bool = False
    groups: int = 1


def build_norm(norm_cfg: dict[str, Any], num_features: int) -> nn.Module:
    """Build a normalisation layer over ``num_features`` channels.

    Args:
        norm_cfg: OpenMMLab's config of a norm (``BN``, ``SyncBN``, ``GN`` ...).
        num_features: Channels.
    """
    return build_norm_layer(dict(norm_cfg), num_features)[1]


LIVELY_RATE = NormalDist().cdf(-1.0)
"""Firing rate of a neuron that fires one standard deviation above the mean: 16 %."""


def make_lively(norm: nn.Module, neuron: nn.Module, rate: float = LIVELY_RATE) -> None:
    """Start a norm at the scale at which a neuron behind it fires often enough to learn.

    At unit scale, a LIF with tau 2 starts at 2.3 %.

    Args:
        norm: Norm with a weight.
        neuron: Neuron of the kind that reads its output; one that does not tell its
            ``firing_input`` leaves the norm at unit scale.
        rate: Firing rate of the neuron, at rest, if the norm's output is normally distributed;
            below 0.5.
    """
    if norm.weight is not None and hasattr(neuron, "firing_input"):
        nn.init.constant_(norm.weight, neuron.firing_input / NormalDist().inv_cdf(1 - rate))


def spread_thresholds(norm: nn.Module, neuron: nn.Module) -> None:
    """Start a norm over an image's features such that its channels fire at different levels.

    With one level for all channels, neurons see nothing of an image that lies on one side of it:
    a dark one among bright ones. Channel by channel, a neuron behind the norm fires, at rest, where
    the features exceed a level between one standard deviation below and two above their mean.

    Args:
        norm: Norm with weight and bias.
        neuron: Neuron of the kind that reads its output.
    """
    if norm.weight is not None:
        make_lively(norm, neuron)
        levels = torch.linspace(-1, 2, norm.weight.numel())
        with torch.no_grad():
            norm.bias.copy_(getattr(neuron, "firing_input", 1.0) * (1 - levels))


class SpikeLayer(Deployable):
    """Neuron, weights, normalisation: ``norm(layer(neuron(x)))``.

    The weights read spikes, the output is a membrane potential (real values).

    Args:
        layer: The weights, a convolution or a linear layer, or several that act as one linear map.
        norm: Normalisation behind them.
        neuron_cfg: Config of the neuron, see :func:`mmspike.neurons.build_neuron`; ``False`` for
            none, where the layer reads the image.
        lively: Whether the norm starts at the scale of :func:`make_lively`.
    """

    def __init__(
        self,
        layer: nn.Module,
        norm: nn.Module,
        neuron_cfg: dict[str, Any] | bool | None = None,
        lively: bool = False,
    ) -> None:
        super().__init__()
        self.neuron = nn.Identity() if neuron_cfg is False else build_neuron(neuron_cfg)
        self.layer = layer
        self.norm = norm
        if lively:
            make_lively(norm, self.neuron)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, C, ...]`` to ``[T, B, C', ...]``."""
        spikes = fire(self.neuron, x_seq, self.layer)
        return per_step(partial(normalise, self.norm), self.weigh(spikes))

    def weigh(self, spikes: Tensor | PackedSpikes) -> Tensor:
        """What stands between neuron and norm: map ``[T, B, C, ...]`` to ``[T, B, C', ...]``."""
        with saving(spikes, self.neuron):
            return per_step(lambda s: convolve(self.layer, s), spikes)

    def forward_levels(self, x_seqs: Sequence[Tensor]) -> list[Tensor]:
        """Map the levels of a pyramid with shared weights and shared normalisation.

        In training, a batch norm takes its statistics over all levels, which evaluation will use.
        Level by level, each would be trained on its own statistics and tested on a mixture.

        Args:
            x_seqs: One ``[T, B, C, H, W]`` per level.

        Returns:
            One ``[T, B, C', H', W']`` per level.
        """
        if not (self.norm.training and isinstance(self.norm, _BatchNorm)):
            return [self(x) for x in x_seqs]
        ys = [self.weigh(fire(self.neuron, x, self.layer)) for x in x_seqs]
        flat = torch.cat([y.flatten(3) for y in ys], dim=-1)  # [T, B, C', pixels of all levels]
        flat = per_step(lambda y: self.norm(y.unsqueeze(-1)).squeeze(-1), flat)
        parts = flat.split([y.shape[-2:].numel() for y in ys], dim=-1)
        return [part.unflatten(-1, y.shape[-2:]) for part, y in zip(parts, ys, strict=True)]


class SpikeChain(nn.Sequential):
    """Spiking layers one behind the other; the norm of each goes with the neuron of the next."""

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, C, H, W]`` to ``[T, B, C', H', W']``."""
        return run_chain(self, x_seq)


def run_chain(layers: Iterable[SpikeLayer], x_seq: Tensor) -> Tensor:
    """Run spiking layers one behind the other.

    Args:
        layers: The layers.
        x_seq: Membrane potentials, ``[T, B, C, H, W]``.

    Returns:
        Membrane potentials, ``[T, B, C', H', W']``.
    """
    layers = list(layers)
    if any(map(is_watched, layers)):  # hooks want to see them called
        for layer in layers:
            x_seq = layer(x_seq)
        return x_seq
    if not layers:
        return x_seq
    spikes = fire(layers[0].neuron, x_seq, layers[0].layer)
    for layer, behind in pairwise(layers):
        fired = convolve_norm_and_fire(layer.layer, layer.norm, behind.neuron, spikes, behind.layer)
        if fired is None:
            fired = norm_and_fire(layer.norm, behind.neuron, layer.weigh(spikes), behind.layer)
        spikes = fired
    return per_step(partial(normalise, layers[-1].norm), layers[-1].weigh(spikes))


def spike_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    bias: bool = False,
    norm_cfg: dict[str, Any],
    neuron_cfg: dict[str, Any] | bool | None = None,
    lively: bool = False,
) -> SpikeLayer:
    """A convolution, padded by half its kernel, as a :class:`SpikeLayer`."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=bias
    )
    return SpikeLayer(conv, build_norm(norm_cfg, out_channels), neuron_cfg, lively)


class SeparableConv(nn.Sequential):
    """Depthwise convolution, padded by half its kernel, and 1x1 convolution; no biases.

    Args:
        in_channels: Channels of the depthwise convolution.
        out_channels: Output channels.
        kernel_size: Of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        pad = kernel_size // 2
        super().__init__(
            nn.Conv2d(
                in_channels, in_channels, kernel_size, padding=pad, groups=in_channels, bias=False
            ),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )

    @property
    def reader(self) -> nn.Module:
        """The layer that reads the spikes."""
        return self[0]

    def forward(self, x: Tensor | PackedSpikes) -> Tensor:
        """Map spikes ``[N, C, H, W]`` to ``[N, C', H, W]``."""
        return self[1](convolve(self[0], x))


class RepConv(nn.Module):
    """Three convolutions that are one linear map: 1x1, depthwise 3x3, 1x1, each norm folded in.

    The border of the depthwise convolution is padded with what the first norm gives for an input of
    0, read from its running statistics (without gradient, and in training after this batch has
    updated them). Behind the padding, the map therefore equals a single 3x3 convolution with
    zero padding, exactly, at the border too.

    Source: "Spike-driven Transformer V2" (arXiv 2404.03663), section 3.2.

    Args:
        channels: Input and output channels.
        norm_cfg: Config of the norms, which must keep running statistics.

    Raises:
        TypeError: If the norm keeps no running statistics.
    """

    def __init__(self, channels: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm1 = build_norm(norm_cfg, channels)
        if not isinstance(self.norm1, _BatchNorm) or self.norm1.running_mean is None:
            raise TypeError(
                f"RepConv needs a batch norm with running statistics, got norm_cfg={norm_cfg!r}"
            )
        self.dwconv = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = build_norm(norm_cfg, channels)

    @torch.no_grad()
    def border_value(self) -> Tensor:
        """What the first norm makes of 0: ``beta - mean * gamma / sqrt(var + eps)``, ``[C]``."""
        norm = self.norm1
        value = -norm.running_mean * torch.rsqrt(norm.running_var + norm.eps)
        return value * norm.weight + norm.bias if norm.affine else value

    @property
    def reader(self) -> nn.Module:
        """The layer that reads the spikes."""
        return self.conv1

    def forward(self, x: Tensor | PackedSpikes) -> Tensor:
        """Map spikes ``[N, C, H, W]`` to ``[N, C, H, W]``."""
        x = normalise(self.norm1, convolve(self.conv1, x))
        border = self.border_value().to(x.dtype).view(1, -1, 1, 1)
        return normalise(self.norm2, self.conv2(self.dwconv(_pad(x, border))))

    def as_convolution(self) -> ConvShape:
        """The one 3x3 convolution that it is."""
        return ConvShape((self.conv2.out_channels, self.conv1.in_channels, 3, 3), (1, 1), (1, 1))


def _pad(x: Tensor, border: Tensor) -> Tensor:
    """Surround ``[N, C, H, W]`` by one pixel of ``border``, ``[1, C, 1, 1]``."""
    n, c, h, w = x.shape
    if torch.compiler.is_compiling():  # which fuses this, and writes into slices badly
        outside = 1 - F.pad(torch.ones_like(x[:1, :1]), (1, 1, 1, 1))
        return F.pad(x, (1, 1, 1, 1)) + border * outside
    padded = torch.empty_like(border.expand(n, c, h + 2, w + 2), memory_format=format_of(x))
    padded.copy_(border)
    padded[:, :, 1:-1, 1:-1] = x
    return padded
