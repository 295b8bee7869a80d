"""Spiking neurons: the plain torch reference and the modules that wrap it."""

from mmspike.neurons.build import AtRest, build_neuron, default_neuron, name_of, neuron_takes
from mmspike.neurons.lif import LIF, build_surrogate
from mmspike.neurons.protocols import Firing, Spiking, firing_input_of, levels_of

__all__ = [
    "LIF",
    "AtRest",
    "Firing",
    "Spiking",
    "build_neuron",
    "build_surrogate",
    "default_neuron",
    "firing_input_of",
    "levels_of",
    "name_of",
    "neuron_takes",
]
