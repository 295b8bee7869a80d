"""Spiking neurons: the plain torch reference and the modules that wrap it."""

from mmspike.neurons.build import AtRest, build_neuron, default_neuron, neuron_takes
from mmspike.neurons.lif import LIF, build_surrogate

__all__ = ["LIF", "AtRest", "build_neuron", "build_surrogate", "default_neuron", "neuron_takes"]
