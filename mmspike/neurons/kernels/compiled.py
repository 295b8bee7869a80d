"""What the reference needs while ``torch.compile`` traces it: parameters that are constants.

With ``dynamic=True`` the compiler takes every float of a module for an input of the graph, of which
every neuron would have four, and cannot trace a surrogate function that has one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from spikingjelly.activation_based import surrogate as sj_surrogate
from torch import Tensor

SMOOTH = frozenset({sj_surrogate.Sigmoid, sj_surrogate.ATan, sj_surrogate.Erf})
"""Surrogates that are the derivative of their primitive function, as autograd finds it."""


def constants(parameters: dict[str, Any]) -> dict[str, Any]:
    """A neuron's parameters as constants of the graph that is traced.

    Args:
        parameters: All those of :func:`mmspike.neurons.functional.lif_multi_step` but the input.

    Returns:
        The same; the graph is compiled again when one of them changes.
    """
    known = {name: _constant(value) for name, value in parameters.items()}
    return {**known, "surrogate": _surrogate(parameters["surrogate"])}


def _surrogate(surrogate: Any) -> Callable[[Tensor], Tensor]:
    if not isinstance(surrogate, sj_surrogate.SurrogateFunctionBase):
        return surrogate
    params = {name: _constant(getattr(surrogate, name)) for name in surrogate._sg_param_names}
    if not surrogate.spiking:
        return partial(surrogate.primitive_function, **params)
    if type(surrogate) in SMOOTH:
        return partial(_step, partial(surrogate.primitive_function, **params))
    return partial(surrogate.spiking_function, **params)


def _step(primitive: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """0 or 1, exactly, with the gradient of ``primitive``: what is added is 0."""
    y = primitive(x)
    return (x >= 0).to(x.dtype) + (y - y.detach())


def _constant(value: Any) -> Any:
    """A float as a constant; anything else as it is.

    A set needs the value of what it holds: the compiler gives it, and guards it. (It would put the
    guess that a mere attribute stays as it is into the set, without a value; hence the product.)
    """
    return {value * 1.0}.pop() if isinstance(value, float) else value
