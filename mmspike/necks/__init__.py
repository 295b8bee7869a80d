"""Spiking necks, and a place for ordinary ones between spiking parts."""

from mmspike.necks.per_step import PerStepNeck
from mmspike.necks.spike_fpn import SpikeFPN

__all__ = ["PerStepNeck", "SpikeFPN"]
