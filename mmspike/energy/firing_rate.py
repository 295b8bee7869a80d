"""Firing rates of the neurons of any model."""

from __future__ import annotations

from collections.abc import Callable

from spikingjelly.activation_based.monitor import OutputMonitor
from spikingjelly.activation_based.neuron import BaseNode
from torch import Tensor, nn


def measure_firing_rates(model: nn.Module, run: Callable[[], object]) -> dict[str, float]:
    """Measure how often the neurons of a model fire.

    Every call of a neuron counts by the number of its outputs, so that a head shared by the levels
    of a pyramid, or called on some RoIs here and more there, has one rate.

    Args:
        model: Model with spiking neurons.
        run: Runs the model, once or often.

    Returns:
        Mean spikes per neuron and time step, by the name of the module, in the order of the model.
        Neurons that were not called are left out.
    """

    def count(spikes: Tensor) -> tuple[float, int]:
        return spikes.detach().sum(dtype=float).item(), spikes.numel()

    with OutputMonitor(model, BaseNode, count) as monitor:
        run()
        calls = {name: monitor[name] for name in monitor.monitored_layers}
    totals = {
        name: [sum(column) for column in zip(*counts, strict=True)]
        for name, counts in calls.items()
        if counts
    }
    return {name: fired / possible for name, (fired, possible) in totals.items() if possible}
