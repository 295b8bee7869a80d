"""Spiking neurons: the plain torch reference and the modules that wrap it."""

from mmspike.neurons.lif import LIF, build_neuron, build_surrogate
from mmspike.neurons.protocols import Firing, Spiking, firing_input_of, levels_of

__all__ = [
    "LIF",
    "Firing",
    "Spiking",
    "build_neuron",
    "build_surrogate",
    "firing_input_of",
    "levels_of",
]
