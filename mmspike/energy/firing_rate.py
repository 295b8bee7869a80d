"""Firing rates of the neurons of any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spikingjelly.activation_based import neuron as sj_neuron
from torch import Tensor, nn

from mmspike.energy.names import part_of
from mmspike.energy.provenance import exact_sum
from mmspike.neurons import Spiking, count_of, frames_of, levels_of, unit_of

_NEURONS = (sj_neuron.BaseNode, sj_neuron.PSN, sj_neuron.MaskedPSN, sj_neuron.SlidingPSN)


def is_neuron(module: nn.Module) -> bool:
    """Whether a module declares that its output is spikes: spikingjelly's neurons, and ours."""
    return isinstance(module, (*_NEURONS, Spiking))


def time_steps_of(neuron: nn.Module, spikes: Tensor) -> int:
    """Steps T in one call of a neuron: the first axis of a multi-step one's output."""
    return spikes.size(0) if getattr(neuron, "step_mode", "m") == "m" else 1


def add_per_step(total: list[float], more: Sequence[float]) -> list[float]:
    """Add two sequences of one number per step; the shorter one is filled up with zeros."""
    steps = max(len(total), len(more))
    padded = [[*x, *[0.0] * (steps - len(x))] for x in (total, more)]
    return [a + b for a, b in zip(*padded, strict=True)]


@dataclass
class NeuronRow:
    """One layer of neurons, summed over all its calls and images.

    Attributes:
        name: Name of the module.
        levels: Largest number of spikes of an output: 1, or D of an integer neuron.
        spikes: Spikes per step.
        outputs: Outputs per step.
        frames: Binary frames of a step, if integers are sent as such; they count as steps here.
    """

    name: str
    levels: int = 1
    spikes: list[float] = field(default_factory=list)
    outputs: float = 0.0
    frames: int = 1

    def add(self, spikes: Sequence[float], outputs: float) -> None:
        """Add one call."""
        self.spikes = add_per_step(self.spikes, spikes)
        self.outputs += outputs

    @property
    def time_steps(self) -> int:
        """Steps T."""
        return len(self.spikes)

    @property
    def part(self) -> str:
        """The part of the model that it belongs to."""
        return part_of(self.name)

    @property
    def rates(self) -> list[float]:
        """Spikes per neuron, for every step."""
        return [s / self.outputs if self.outputs else 0.0 for s in self.spikes]

    @property
    def frame_rates(self) -> list[float]:
        """Spikes per neuron and binary frame, at most 1: of integers, the D-th part of a step's."""
        return [rate / self.levels for rate in self.rates]


def rates_per_frame(neurons: Sequence[NeuronRow]) -> dict[str, float]:
    """Firing rate of each layer, by its name: per step, or per binary frame of integers."""
    return {row.name: sum(row.frame_rates) / row.time_steps for row in neurons}


class FiringRateMonitor:
    """Context manager that counts the spikes of every neuron of a model.

    Every call of a neuron counts by the number of its outputs, so that a head shared by the levels
    of a pyramid, or called on some RoIs here and more there, has one rate. (spikingjelly's monitors
    do not tell whether the first axis of what they record is time.)

    Args:
        model: Model with spiking neurons.

    Attributes:
        rows: One row per layer of neurons, in the order of the model, called or not.
    """

    def __init__(self, model: nn.Module) -> None:
        self.rows: list[NeuronRow] = []
        self._handles = []
        for name, module in model.named_modules():
            if is_neuron(module):
                row = NeuronRow(name, levels_of(module) or 1, frames=frames_of(module))
                self.rows.append(row)
                self._handles.append(module.register_forward_hook(_recorder(row)))

    def __enter__(self) -> FiringRateMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop counting; what was counted stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _recorder(row: NeuronRow) -> Callable:
    def record(module: nn.Module, args: Any, spikes: Tensor) -> None:
        steps = time_steps_of(module, spikes)
        if spikes.numel():
            counts = count_of(spikes.detach(), unit_of(module))
            row.add(exact_sum(counts.reshape(steps, -1)), spikes.numel() / steps)

    return record


def measure_firing_rates(model: nn.Module, run: Callable[[], object]) -> dict[str, float]:
    """Measure how often the neurons of a model fire.

    Args:
        model: Model with spiking neurons.
        run: Runs the model, once or often.

    Returns:
        Mean spikes per neuron and time step, by the name of the module, in the order of the model.
        Neurons that were not called are left out.
    """
    with FiringRateMonitor(model) as monitor:
        run()
    return {r.name: sum(r.rates) / r.time_steps for r in monitor.rows if r.outputs}
