"""Spiking neurons: the plain torch reference and the modules that wrap it."""

from mmspike.neurons.lif import LIF, build_neuron, build_surrogate

__all__ = ["LIF", "build_neuron", "build_surrogate"]
