"""Spiking necks."""

from mmspike.necks.spike_fpn import SpikeFPN

__all__ = ["SpikeFPN"]
