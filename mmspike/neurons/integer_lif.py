"""The integer leaky integrate-and-fire neuron as a module."""

from __future__ import annotations

from torch import Tensor, nn

from mmspike.neurons.arguments import check_flag
from mmspike.neurons.kernels.common import IntegerParameters
from mmspike.neurons.kernels.integer import integer_lif_multi_step
from mmspike.registry import MODELS


@MODELS.register_module()
class IntegerLIF(nn.Module):
    """Multi-step neuron that fires integers from 0 to D, and starts every call at rest.

    Trained with integers, it runs as D binary frames a step (see :func:`mmspike.deploy.unroll`). It
    is the I-LIF of SpikeYOLO with ``normalize=False``, the NI-LIF of Spike2Former without, and at
    T = 1 the neuron of spike firing approximation (SFA), as in E-SpikeFormer. The equations stand
    at :func:`mmspike.neurons.functional.integer_lif_multi_step`.

    Args:
        levels: D, the largest integer, up to 255.
        beta: What is left of a potential after a step, ``1 - 1 / tau``; without effect at T = 1.
        normalize: Whether the output is n / D instead of n.
        detach_reset: Whether the integer that is subtracted is cut from the graph.

    Attributes:
        spike_levels: D.
        spike_unit: What a spike is worth in the output: 1 / D, or 1.
        firing_input: D / 2, at which half of the D spikes are fired from rest.

    Raises:
        TypeError: If ``normalize`` or ``detach_reset`` is no bool.
        ValueError: If ``levels`` is not a whole number from 1 to 255, or ``beta`` not in [0, 1].

    Examples:
        >>> import torch
        >>> IntegerLIF(levels=4)(torch.tensor([[-1.0, 0.6, 2.5, 9.0]])).tolist()  # T = 1
        [[0.0, 0.25, 0.5, 1.0]]
    """

    def __init__(
        self,
        levels: int = 4,
        beta: float = 0.5,
        normalize: bool = True,
        detach_reset: bool = True,
    ) -> None:
        super().__init__()
        if type(levels) is not int or not 1 <= levels <= 255:
            raise ValueError(f"IntegerLIF: levels must be a whole number in 1..255, got {levels!r}")
        if not isinstance(beta, int | float) or not 0 <= beta <= 1:
            raise ValueError(f"IntegerLIF: beta must be a number from 0 to 1, got {beta!r}")
        for name, flag in (("normalize", normalize), ("detach_reset", detach_reset)):
            check_flag(f"IntegerLIF: {name}", flag)
        self.levels = levels
        self.beta = float(beta)
        self.normalize = normalize
        self.detach_reset = detach_reset

    @property
    def spike_levels(self) -> int:
        """The largest number of spikes of one output."""
        return self.levels

    @property
    def firing_input(self) -> float:
        """What drives a neuron at rest to half of its spikes."""
        return self.levels / 2

    @property
    def spike_unit(self) -> float:
        """What a spike is worth in the output."""
        return 1.0 / self.levels if self.normalize else 1.0

    def forward(self, x_seq: Tensor) -> Tensor:
        """Turn an input sequence ``[T, ...]`` into integers, or n / D, of that shape and type."""
        return integer_lif_multi_step(x_seq, *self.dynamics())

    def dynamics(self) -> IntegerParameters:
        """What the implementations take beside the input."""
        return IntegerParameters(self.levels, self.beta, self.normalize, self.detach_reset)

    def extra_repr(self) -> str:
        """The parameters, as torch prints them."""
        return f"levels={self.levels}, beta={self.beta}, normalize={self.normalize}"
