"""The classifier of the published models: average over the image, neuron, linear layers, time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmspike.layers.conv import predict
from mmspike.neurons import IntegerLIF, build_neuron
from mmspike.neurons.known import known_neuron


def build_classifier_neuron(cfg: dict[str, Any] | None = None) -> nn.Module:
    """Build the neuron in front of a classifier; an integer neuron gives n, and not n / D.

    Args:
        cfg: As in :func:`mmspike.neurons.build_neuron`.
    """
    neuron = build_neuron(cfg)
    if isinstance(neuron, IntegerLIF):
        neuron.normalize = False
    return neuron


def classifier_neuron_of(cfg: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The config of the neuron that :func:`build_classifier_neuron` builds of one.

    Args:
        cfg: The config; ``None`` means ``dict(type="mmspike.LIF")``. Nothing in it is imported.

    Examples:
        >>> classifier_neuron_of({"type": "mmspike.IntegerLIF"})
        {'type': 'mmspike.IntegerLIF', 'normalize': False}
    """
    cfg = cfg or {"type": "mmspike.LIF"}
    kind = known_neuron(cfg.get("type"))
    of_integers = kind is not None and issubclass(kind, IntegerLIF)
    return {**cfg, "normalize": False} if of_integers else cfg


def join_scores(scores: Sequence[Tensor], training: bool) -> Tensor | tuple[Tensor, ...]:
    """What a classifier gives of the logits of its layers.

    Args:
        scores: Logits ``[B, num_classes]`` of each layer.
        training: Whether each is to learn for itself.

    Returns:
        Several layers in training: all of them; else their average.
    """
    if training and len(scores) > 1:
        return tuple(scores)
    return sum(scores[1:], scores[0]) / len(scores)


def classify(x_seq: Tensor, neuron: nn.Module, layers: Iterable[nn.Module]) -> list[Tensor]:
    """Average over the image, fire, average the spikes over time, and score them.

    Args:
        x_seq: Membrane potentials, ``[T, B, C, H, W]``.
        neuron: The neuron, which reads ``[T, B, C]``.
        layers: Linear layers that read the spikes.

    Returns:
        Logits ``[B, num_classes]`` of each layer.
    """
    spikes = neuron(x_seq.mean((-2, -1)))
    return [predict(layer, spikes, layer) for layer in layers]
