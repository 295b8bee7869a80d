"""Chains of spiking layers on a GPU: channels-last maps, few launches, spikes kept as bits.

Neurons, and batch norms with the neuron after them, are Triton kernels; convolutions are cuDNN's,
which read spikes in the type of the autocast and keep bits for their backward pass. Results are
those of the plain layers to rounding. Triton is imported when an engine first runs.
"""
