"""Firing rates of the neurons of any model."""

from __future__ import annotations

from collections.abc import Callable

from spikingjelly.activation_based.monitor import OutputMonitor
from spikingjelly.activation_based.neuron import BaseNode
from torch import Tensor, nn

from mmspike.energy.provenance import exact_sum


class FiringRateMonitor(OutputMonitor):
    """Counts the spikes of every multi-step neuron of a model while it is open.

    Every call of a neuron counts by the number of its outputs, so that a head shared by the levels
    of a pyramid, or called on some RoIs here and more there, has one rate.

    Args:
        model: Model with spiking neurons.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, BaseNode, _count)

    def totals(self) -> dict[str, tuple[list[float], int]]:
        """Spikes per step, and outputs per step, by name; neurons that were not called left out."""
        totals = {}
        for name in self.monitored_layers:
            calls = [(spikes, outputs) for spikes, outputs in self[name] if outputs]
            if calls:
                steps = zip(*(spikes for spikes, _ in calls), strict=True)
                totals[name] = [sum(step) for step in steps], sum(n for _, n in calls)
        return totals

    def rates(self) -> dict[str, list[float]]:
        """Spikes per neuron, for every time step, by the name of the module."""
        return {
            name: [step / outputs for step in spikes]
            for name, (spikes, outputs) in self.totals().items()
        }


def _count(spikes: Tensor) -> tuple[list[float], int]:
    return exact_sum(spikes.detach().flatten(1)), spikes[0].numel()


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
        rates = monitor.rates()
    return {name: sum(steps) / len(steps) for name, steps in rates.items()}
