"""What a neuron may tell about itself; any module may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Spiking(Protocol):
    """A module whose output is spikes: integers from 0 to ``spike_levels``, times a unit."""

    spike_levels: int


@runtime_checkable
class Scaled(Protocol):
    """A neuron that says what a spike is worth in its output; of others, it is 1."""

    spike_unit: float


@runtime_checkable
class Firing(Protocol):
    """A neuron that tells the input which drives it to half of its spikes in its first step.

    From rest: the threshold, of a neuron that fires 0 and 1. Norms in front start at that scale.
    """

    firing_input: float


def levels_of(neuron: nn.Module) -> int | None:
    """Largest value of a neuron's output; ``None`` if it does not say that it spikes."""
    return neuron.spike_levels if isinstance(neuron, Spiking) else None


def firing_input_of(neuron: nn.Module) -> float | None:
    """What drives a neuron at rest to half of its spikes; ``None`` if it does not say."""
    return neuron.firing_input if isinstance(neuron, Firing) else None


@runtime_checkable
class Framed(Protocol):
    """A neuron that sends an integer as binary frames, which follow one another as steps do."""

    frames: int


def frames_of(neuron: nn.Module) -> int:
    """Binary frames of a step."""
    return neuron.frames if isinstance(neuron, Framed) else 1


@runtime_checkable
class ChoosesNeuron(Protocol):
    """A part of a model whose neuron is not simply that of its config."""

    def neuron_of(self, cfg: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The config of the neuron that the part has, where ``cfg`` is named, or nothing.

        It is asked of what was built, and of configs that lie in files of weights: nothing may be
        imported for a name in them.
        """


@runtime_checkable
class Configured(Protocol):
    """A part that computes with more than weights and neurons, and tells with what."""

    def beside_weights(self, cfg: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Its settings, by the names of its arguments, or those of a config, as far as it tells.

        As with :meth:`ChoosesNeuron.neuron_of`, nothing of a config may be run.
        """


@runtime_checkable
class TakenApart(Protocol):
    """A module that takes products of integers apart into products of binary frames.

    Attributes:
        products: For every product of a call, in their order, into how many the product on integers
            is taken apart that it is one of.
    """

    products: tuple[int, ...]


def unit_of(neuron: nn.Module) -> float:
    """What a spike is worth in a neuron's output."""
    return neuron.spike_unit if isinstance(neuron, Scaled) else 1.0


def count_of(spikes: Tensor, unit: float) -> Tensor:
    """How many spikes each element is: whole numbers, float32 at least where they are scaled."""
    return spikes if unit == 1.0 else (spikes.float() / unit).round_()
