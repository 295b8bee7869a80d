"""The leaky integrate-and-fire neuron as a module."""

from __future__ import annotations

import math
from typing import Any

from spikingjelly.activation_based import surrogate as sj_surrogate
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor

from mmspike.neurons.arguments import check_config, check_flag
from mmspike.neurons.kernels import select
from mmspike.neurons.kernels.common import LIFParameters
from mmspike.registry import MODELS


def build_surrogate(cfg: dict[str, Any] | None) -> sj_surrogate.SurrogateFunctionBase:
    """Build a surrogate function of spikingjelly's.

    Args:
        cfg: Its class name as ``type``, and its arguments; ``None`` means the published model's,
            ``dict(type="Sigmoid", alpha=4.0)``.

    Raises:
        TypeError: If ``cfg`` is no config.
        ValueError: If spikingjelly has no surrogate of that name, or an argument is a number that
            is not finite.
    """
    check_config("surrogate", cfg, "Sigmoid")
    cfg = dict(cfg or {"type": "Sigmoid", "alpha": 4.0})
    name = cfg.pop("type", None)
    known = {
        key
        for key, value in vars(sj_surrogate).items()
        if isinstance(value, type) and issubclass(value, sj_surrogate.SurrogateFunctionBase)
    } - {"SurrogateFunctionBase"}
    if name not in known:
        raise ValueError(f"unknown surrogate type {name!r}; spikingjelly has {sorted(known)}")
    for key, value in cfg.items():
        _check_finite(f"surrogate.{key}", value)
    return getattr(sj_surrogate, name)(**cfg)


def _check_finite(name: str, value: Any) -> None:
    """Refuse NaN and infinity: compared with them, a neuron is silent for ever, without a word."""
    if isinstance(value, int | float) and not math.isfinite(value):
        raise ValueError(f"neuron: {name} must be a finite number, got {value!r}")


@MODELS.register_module()
class LIF(LIFNode):
    """Multi-step leaky integrate-and-fire neuron that starts every call at rest.

    It is a ``LIFNode`` of spikingjelly, so that its monitors and counters recognise it, but keeps
    no state between calls: nothing has to be reset, and nothing leaks from one image, window or
    batch of RoIs to the next. The equations stand at
    :func:`mmspike.neurons.functional.lif_multi_step`; the defaults are the published model's.

    Args:
        tau: Time constant in time steps, above 1.
        v_threshold: Potential at which the neuron fires.
        v_reset: Potential after a spike; ``None`` subtracts the threshold instead.
        decay_input: Whether the input is divided by ``tau`` too.
        surrogate: Config of the surrogate gradient, see :func:`build_surrogate`.
        detach_reset: Whether the reset is cut from the graph.
        backend: What runs it, one of :data:`mmspike.neurons.kernels.select.BACKENDS`; ``"auto"``
            takes the fastest that is there. All give the same spikes and, to rounding, gradients.

    Raises:
        TypeError: If ``decay_input`` or ``detach_reset`` is no bool, or ``surrogate`` no config.
        ValueError: If ``tau`` is not above 1, a number is not finite, or the surrogate or the
            backend is unknown.

    Examples:
        >>> import torch
        >>> LIF()(torch.tensor([1.5, 1.5, 1.5])[:, None]).flatten().tolist()  # T = 3, one neuron
        [0.0, 1.0, 0.0]
    """

    spike_levels: int = 1
    """The output is spikes: integers from 0 to this number."""

    def __init__(
        self,
        tau: float = 2.0,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        decay_input: bool = True,
        surrogate: dict[str, Any] | None = None,
        detach_reset: bool = True,
        backend: str = "auto",
    ) -> None:
        for name, value in (("tau", tau), ("v_threshold", v_threshold), ("v_reset", v_reset)):
            _check_finite(name, value)
        for name, flag in (("decay_input", decay_input), ("detach_reset", detach_reset)):
            check_flag(f"LIF: {name}", flag)
        if not tau > 1:
            raise ValueError(f"LIF: tau must be above 1 time step, got {tau!r}")
        if backend not in select.BACKENDS:
            raise ValueError(f"LIF: backend must be one of {select.BACKENDS}, got {backend!r}")
        super().__init__(
            tau=float(tau),
            decay_input=decay_input,
            v_threshold=float(v_threshold),
            v_reset=None if v_reset is None else float(v_reset),
            surrogate_function=build_surrogate(surrogate),
            detach_reset=detach_reset,
            step_mode="m",
        )
        self.backend = backend

    def supported_step_mode(self) -> tuple[str]:
        """Only ``"m"``: a neuron without state between calls needs the whole sequence."""
        return ("m",)

    @property
    def firing_input(self) -> float:
        """The smallest input at which the neuron, at rest, fires in its first step."""
        rest = self.v_reset or 0.0
        return (self.v_threshold - rest) * (self.tau if self.decay_input else 1.0)

    def forward(self, x_seq: Tensor) -> Tensor:
        """Turn an input sequence ``[T, ...]`` into spikes of the same shape and type."""
        return select.lif_multi_step(x_seq, self.backend, **self.dynamics()._asdict())

    def dynamics(self) -> LIFParameters:
        """What the implementations take beside the input."""
        return LIFParameters(
            tau=self.tau,
            v_threshold=self.v_threshold,
            v_reset=self.v_reset,
            decay_input=self.decay_input,
            surrogate=self.surrogate_function,
            detach_reset=self.detach_reset,
        )
