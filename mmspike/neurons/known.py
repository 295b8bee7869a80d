"""Neurons by a name that nobody has checked, such as one in a file: nothing is imported for it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from spikingjelly.activation_based import base as sj_base
from spikingjelly.activation_based import neuron as sj_neuron
from torch import nn

from mmspike.registry import MODELS

_OF_TRAINING = {
    *("type", "surrogate", "surrogate_function", "detach_reset", "backend", "step_mode"),
    *("store_v_seq", "inplace"),
}
"""Settings of neurons that change nothing in inference."""


def short_name(kind: Any) -> str:
    """The name of a class or of a config's ``type``, without what stands before it.

    Examples:
        >>> short_name("mmspike.LIF")
        'LIF'
    """
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def known_neuron(kind: Any) -> type | None:
    """The class of a neuron, if it is known without importing anything.

    Args:
        kind: The ``type`` of its config.

    Returns:
        One that is registered, spikingjelly's, or an activation of torch's; ``None`` for others.

    Examples:
        >>> known_neuron("mmspike.IntegerLIF").__name__, known_neuron("os.system")
        ('IntegerLIF', None)
    """
    if inspect.isclass(kind):
        return kind
    name = short_name(kind)
    registered = MODELS.module_dict.get(name)
    if inspect.isclass(registered):
        return registered
    theirs = getattr(sj_neuron, name, None)
    if inspect.isclass(theirs) and issubclass(theirs, sj_base.StepModule):
        return theirs
    activation = getattr(nn, name, None)
    return activation if activation in vars(nn.modules.activation).values() else None


def inference_settings(cls: type | None, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a neuron computes with: the plain values of its config that count in inference.

    Args:
        cls: Its class, whose defaults hold where the config says nothing; ``None`` for none.
        cfg: Its config.
    """
    parameters = inspect.signature(cls).parameters.values() if cls is not None else ()
    given = {**{p.name: p.default for p in parameters}, **cfg}
    return {k: v for k, v in given.items() if k not in _OF_TRAINING and is_plain(v)}


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, or none."""
    return value is None or isinstance(value, bool | int | float | str)
