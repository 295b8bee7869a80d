"""Spiking neurons: the plain torch reference and the modules that wrap it."""

from mmspike.neurons.build import (
    AtRest,
    build_neuron,
    default_neuron,
    default_neuron_cfg,
    name_of,
    neuron_class,
    neuron_takes,
)
from mmspike.neurons.integer_lif import IntegerLIF
from mmspike.neurons.lif import LIF, build_surrogate
from mmspike.neurons.protocols import (
    Firing,
    Scaled,
    Spiking,
    TakenApart,
    count_of,
    firing_input_of,
    frames_of,
    levels_of,
    unit_of,
)

__all__ = [
    "LIF",
    "AtRest",
    "Firing",
    "IntegerLIF",
    "Scaled",
    "Spiking",
    "TakenApart",
    "build_neuron",
    "build_surrogate",
    "count_of",
    "default_neuron",
    "default_neuron_cfg",
    "firing_input_of",
    "frames_of",
    "levels_of",
    "name_of",
    "neuron_class",
    "neuron_takes",
    "unit_of",
]
