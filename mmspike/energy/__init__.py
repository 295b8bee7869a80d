"""What a spiking network does: how often its neurons fire."""

from mmspike.energy.firing_rate import measure_firing_rates

__all__ = ["measure_firing_rates"]
