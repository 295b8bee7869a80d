"""Spike-driven inference: integers of 0 to D as D binary frames, layer by layer.

An integer n becomes D frames of which the first n are 1. A weight layer adds up what its weights
make of the frames, weights divided by D where the neuron gave n / D, biases by D always, so that
they count once; attention multiplies all pairs of frames. A neuron reads the sum over all D frames
of its input before it fires. The frames of a step follow one another on the time axis: where the
integer network has T steps, there are T * D binary ones.

Source: "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation Training"
(arXiv 2411.16061), section 3, which trains with integers what runs as spikes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from mmspike import fused
from mmspike.deploy.attention import DeployedSelfAttention
from mmspike.deploy.frame_layers import BinaryFrames, UnrolledAttention, UnrolledSpikeLayer
from mmspike.deploy.switch import switch_to_deploy
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.conv import FrameByFrame, SpikeLayer
from mmspike.layers.efficient_attention import EfficientSpikeAttention
from mmspike.layers.forms import Deployable
from mmspike.neurons import IntegerLIF

Attention = SpikeDrivenSelfAttention | DeployedSelfAttention | EfficientSpikeAttention


@dataclass
class UnrollReport:
    """What :func:`unroll` did.

    Attributes:
        neurons: Neurons that give frames.
        layers: Layers of weights that read them.
        attentions: Attention modules that multiply pairs of frames.
        frames: D of the neurons, each value once.
    """

    neurons: int = 0
    layers: int = 0
    attentions: int = 0
    frames: set[int] = field(default_factory=set)

    def __str__(self) -> str:
        """One line for the log."""
        frames = " or ".join(map(str, sorted(self.frames)))
        return (
            f"unrolled {self.neurons} neurons to {frames} binary frames a step, read by "
            f"{self.layers} layers; {self.attentions} attention modules multiply pairs of frames"
        )


def unroll(model: nn.Module) -> UnrollReport:
    """Turn a trained model with integer neurons into one that runs on binary frames, in place.

    Norms are folded first (:func:`mmspike.deploy.switch_to_deploy`, RepConv as one convolution).
    Outputs stay the same to rounding; where a sum lies on a tie, rounding may move an integer. What
    does not read integers stays as it is: the image's layer, ordinary necks and heads, and the 1x1
    convolution in Meta-SpikeFormer's ``SepConv``, which reads what a depthwise one gives.

    Args:
        model: A detector, a segmentor, a classifier or a backbone with integer neurons.

    Returns:
        What was done.

    Raises:
        ValueError: If the model has no :class:`~mmspike.neurons.IntegerLIF`, its attention averages
            (``attn_scale=None``), or it was unrolled or folded before. It is then not changed.
    """
    if any(isinstance(m, BinaryFrames) for m in model.modules()):
        raise ValueError("unroll: the model is unrolled already")
    if any(isinstance(m, Deployable) and m.form for m in model.modules()):
        raise ValueError("unroll: the model is folded already; unroll it as it was trained")
    neurons = {m: name for name, m in model.named_modules() if isinstance(m, IntegerLIF)}
    if not neurons:
        raise ValueError(
            "unroll: the model has no integer neurons; train one with "
            "neuron_cfg=dict(type='mmspike.IntegerLIF')"
        )
    averaging = [
        n for n, m in model.named_modules() if isinstance(m, Attention) and m.scale is None
    ]
    if averaging:
        raise ValueError(
            f"unroll: {averaging[0]} averages over the pixels (attn_scale=None), which no sum of "
            "spikes is; train the model with a number as its attn_scale"
        )
    switch_to_deploy(model, rep_conv="conv3x3", lay_out=False)
    with torch.no_grad():
        _Unroller(neurons).replace(model)
    frames = [m for m in model.modules() if isinstance(m, BinaryFrames)]
    attentions = [m for m in model.modules() if isinstance(m, UnrolledAttention)]
    layers = [m for m in model.modules() if isinstance(m, UnrolledSpikeLayer | FrameByFrame)]
    return UnrollReport(
        neurons=len(frames),
        layers=len(layers) + sum(len(a.weights) for a in attentions),
        attentions=len(attentions),
        frames={m.frames for m in frames},
    )


class _Unroller:
    """Replaces modules, with the names of the neurons at hand."""

    def __init__(self, names: dict[nn.Module, str]) -> None:
        self.names = names

    def replace(self, parent: nn.Module) -> None:
        """Replace what reads integers, and what gives them, below a module."""
        integers = [m for m in parent.children() if isinstance(m, IntegerLIF)]
        for name, child in list(parent.named_children()):
            if isinstance(child, IntegerLIF):
                setattr(parent, name, self._frames(child))
            elif isinstance(child, Attention) and isinstance(child.neuron, IntegerLIF):
                setattr(parent, name, self._attention(child).eval())
            elif isinstance(child, SpikeLayer) and isinstance(child.neuron, IntegerLIF):
                parts = (child.neuron, child.layer, child.norm)
                setattr(parent, name, self._layer(*parts).eval())
            elif integers and isinstance(child, nn.Linear | nn.Conv2d):  # a predictor
                child.weight.mul_(integers[0].spike_unit * integers[0].levels)  # of their mean
                setattr(parent, name, FrameByFrame(child))
            else:
                self.replace(child)

    def _frames(self, neuron: IntegerLIF, *others: str) -> BinaryFrames:
        return BinaryFrames(neuron, (self.names[neuron], *others))

    def _layer(self, neuron: IntegerLIF, layer: nn.Module, norm: nn.Module) -> UnrolledSpikeLayer:
        return UnrolledSpikeLayer(self._frames(neuron), _scaled(layer, neuron), norm)

    def _attention(self, attention: Attention) -> UnrolledAttention:
        convs, _, neurons = zip(*attention.projections(), strict=True)
        if len(neurons) == 1:  # it reads q, k and v
            others = [self.names[neurons[0]].removesuffix("q_neuron") + f"{x}_neuron" for x in "kv"]
            fire = [self._frames(neurons[0], *others)]
        else:
            fire = [self._frames(neuron) for neuron in neurons]
        units = [neuron.spike_unit for neuron in neurons] * (3 if len(neurons) == 1 else 1)
        return UnrolledAttention(
            attention.num_heads,
            attention.scale * units[0] * units[1] * units[2],
            self._frames(attention.neuron),
            [_scaled(conv, attention.neuron) for conv in convs],
            fire,
            self._layer(*attention.output()),
        )


def _scaled(layer: nn.Module, neuron: IntegerLIF) -> nn.Module:
    """A layer whose weights take a frame for a part of the output, and whose biases add up."""
    first = layer.first if isinstance(layer, fused.SplitLayer) else layer
    first.weight.mul_(neuron.spike_unit)
    if first.bias is not None:
        first.bias.div_(neuron.levels)
    return layer
