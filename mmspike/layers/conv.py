"""Weight layers that read spikes: neuron, weights, normalisation; and how they start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist
from typing import Any, Literal

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike import fused
from mmspike.layers.forms import Deployable
from mmspike.layers.time import mean_over_time, per_step
from mmspike.neurons import build_neuron, firing_input_of


def build_norm(norm_cfg: dict[str, Any], num_features: int) -> nn.Module:
    """Build a normalisation layer over ``num_features`` channels.

    Args:
        norm_cfg: OpenMMLab's config of a norm (``BN``, ``SyncBN``, ``GN`` ...).
        num_features: Channels.
    """
    return build_norm_layer(dict(norm_cfg), num_features)[1]


ONE_SIGMA_RATE = NormalDist().cdf(-1.0)
"""Firing rate of a neuron that fires one standard deviation above the mean: 16 %."""


def init_firing_rate(norm: nn.Module, neuron: nn.Module, rate: float) -> None:
    """Start a norm at the scale at which the neuron after it fires at a given rate.

    At unit scale, a LIF with tau 2 fires at 2.3 %, too rarely to learn from. A neuron that fires
    integers gives more than half of its spikes at that rate.

    Args:
        norm: Norm with a weight.
        neuron: Neuron of the kind that reads its output; one that does not tell its
            ``firing_input`` leaves the norm at unit scale.
        rate: Firing rate of the neuron in its first step if the norm's output is normally
            distributed; below 0.5.
    """
    init_scale(norm, neuron, 1 / NormalDist().inv_cdf(1 - rate))


def init_scale(norm: nn.Module, neuron: nn.Module, scale: float) -> None:
    """Start a norm at a scale that is given in units of the neuron's ``firing_input``.

    Args:
        norm: Norm with a weight.
        neuron: As in :func:`init_firing_rate`.
        scale: Standard deviation of the norm's output.
    """
    firing_input = firing_input_of(neuron)
    if norm.weight is not None and firing_input is not None:
        nn.init.constant_(norm.weight, firing_input * scale)


def spread_biases(norm: nn.Module, neuron: nn.Module) -> None:
    """Start a norm over an image's features such that its channels fire at different levels.

    With one level for all channels, neurons see nothing of an image that lies on one side of it:
    a dark one among bright ones. Channel by channel, a neuron after the norm fires, in its first
    step, where the features exceed a level between one standard deviation below and two above
    their mean.

    Args:
        norm: Norm with weight and bias.
        neuron: Neuron of the kind that reads its output.
    """
    if norm.weight is not None:
        init_firing_rate(norm, neuron, ONE_SIGMA_RATE)
        levels = torch.linspace(-1, 2, norm.weight.numel())
        with torch.no_grad():
            norm.bias.copy_((firing_input_of(neuron) or 1.0) * (1 - levels))


class SpikeLayer(Deployable):
    """Neuron, weights, normalisation: ``norm(layer(neuron(x)))``.

    The weights read spikes, the output is a membrane potential (real values).

    Args:
        layer: The weights, a convolution or a linear layer, or several that act as one linear map.
        norm: Normalisation after them.
        neuron_cfg: Config of the neuron, see :func:`mmspike.neurons.build_neuron`; ``False`` for
            none, where the layer reads the image.
        init_rate: Firing rate at which the norm lets the next neuron start, see
            :func:`init_firing_rate`; ``None`` leaves it at unit scale.
    """

    def __init__(
        self,
        layer: nn.Module,
        norm: nn.Module,
        neuron_cfg: dict[str, Any] | Literal[False] | None = None,
        init_rate: float | None = None,
    ) -> None:
        super().__init__()
        self.neuron = nn.Identity() if neuron_cfg is False else build_neuron(neuron_cfg)
        self.layer = layer
        self.norm = norm
        if init_rate is not None:
            init_firing_rate(norm, self.neuron, init_rate)

    def _apply(self, *args: Any, **kwargs: Any) -> SpikeLayer:
        super()._apply(*args, **kwargs)  # moves the weights, or changes their type
        fused.lay_out_weight(self.layer)
        return self

    def forward(self, x_seq: Tensor) -> Tensor:
        """Map ``[T, B, C, ...]`` to ``[T, B, C', ...]``."""
        y_seq = fused.run([fused.Link(self.neuron, self.layer, self.norm)], x_seq)
        if y_seq is not None:
            return y_seq
        spikes = self.neuron(x_seq)
        return per_step(lambda s: self.norm(self.layer(s)), spikes)

    def weigh(self, x_seq: Tensor) -> Tensor:
        """What the norm reads: map ``[T, B, C, ...]`` to ``[T, B, C', ...]``."""
        y_seq = fused.run([fused.Link(self.neuron, self.layer, nn.Identity())], x_seq)
        return per_step(self.layer, self.neuron(x_seq)) if y_seq is None else y_seq

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
        ys = [self.weigh(x) for x in x_seqs]
        flat = fused.join_pixels(ys)  # [T, B, C', pixels of all levels]
        flat = per_step(lambda y: self.norm(y.unsqueeze(-1)).squeeze(-1), flat)
        parts = flat.split([y.shape[-2:].numel() for y in ys], dim=-1)
        return [part.unflatten(-1, y.shape[-2:]) for part, y in zip(parts, ys, strict=True)]


def run_layers(layers: Iterable[SpikeLayer], x_seq: Tensor) -> Tensor:
    """Run spiking layers one after the other: ``[T, B, C, ...]`` to ``[T, B, C', ...]``."""
    y_seq = fused.run(layers, x_seq)
    if y_seq is not None:
        return y_seq
    for layer in layers:
        x_seq = layer(x_seq)
    return x_seq


def run_layers_on_levels(layers: Sequence[SpikeLayer], x_seqs: Sequence[Tensor]) -> list[Tensor]:
    """Run spiking layers that the levels of a pyramid share, see ``SpikeLayer.forward_levels``.

    Args:
        layers: The layers.
        x_seqs: One ``[T, B, C, H, W]`` per level.

    Returns:
        One ``[T, B, C', H', W']`` per level.
    """
    if not any(layer.training for layer in layers):
        return [run_layers(layers, x) for x in x_seqs]
    for layer in layers:
        x_seqs = layer.forward_levels(x_seqs)
    return list(x_seqs)


class FrameByFrame(nn.Module):
    """A predictor that reads binary frames, and not their average; see :func:`predict`.

    Args:
        layer: The predictor.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    @property
    def weight(self) -> Tensor:
        """The predictor's."""
        return self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, ...]`` to ``[N, C', ...]``."""
        return self.layer(x)


def predict(predictor: Callable[[Tensor], Tensor], spikes: Tensor, layer: nn.Module) -> Tensor:
    """What a linear predictor makes of spikes averaged over time, in the type of its weights.

    Under autocast that is float32: gradients of a predictor are sums over all pixels or RoIs, the
    first to leave the range of float16.

    Args:
        predictor: Linear, so that it may read the average.
        spikes: ``[T, N, ...]``.
        layer: The layer with its weights; a :class:`FrameByFrame` reads every step, and what it
            makes of them is averaged.

    Returns:
        ``[N, ...]``.
    """
    dtype = layer.weight.dtype
    with torch.autocast(spikes.device.type, enabled=False):
        if isinstance(layer, FrameByFrame):
            return mean_over_time(per_step(predictor, spikes.to(dtype)))
        return predictor(mean_over_time(spikes).to(dtype))


def spike_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    bias: bool = False,
    norm_cfg: dict[str, Any],
    neuron_cfg: dict[str, Any] | Literal[False] | None = None,
    init_rate: float | None = None,
) -> SpikeLayer:
    """A convolution, padded by half its kernel, as a :class:`SpikeLayer`."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=bias
    )
    return SpikeLayer(conv, build_norm(norm_cfg, out_channels), neuron_cfg, init_rate)
