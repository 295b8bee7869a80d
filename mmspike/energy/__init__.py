"""What a spiking network does: how often its neurons fire, and what its operations cost."""

from mmspike.energy.costs import Conventions
from mmspike.energy.counter import EnergyCounter, measure
from mmspike.energy.firing_rate import measure_firing_rates
from mmspike.energy.report import EnergyReport

__all__ = ["Conventions", "EnergyCounter", "EnergyReport", "measure", "measure_firing_rates"]
