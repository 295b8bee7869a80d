"""Chains of spiking layers on a CPU: spikes as bits, and convolutions that follow them.

Neurons write their spikes as bits, and a convolution that reads them adds up rows of weights where
there are any; a batch norm and the neuron after it are one pass over memory, which keeps the norm's
input alone. The results are those of the plain layers but for the order of the sums, in gradients
but for their rounding. Bits never leave this folder.
"""
