"""Neurons by a name that nobody has checked, such as one in a file: nothing is imported for it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule
from spikingjelly.activation_based import base as sj_base
from spikingjelly.activation_based import neuron as sj_neuron
from torch import nn

from mmspike.registry import MODELS

_OF_TRAINING = {
    *("type", "surrogate", "surrogate_function", "detach_reset", "backend", "step_mode"),
    *("store_v_seq", "inplace"),
}
"""Settings of neurons that change nothing in inference."""
_ACTIVATIONS = nn.modules.activation.__name__
_NODES = sj_neuron.__name__
_HOSTS = ("mmengine", "mmdet", "mmseg", "mmpretrain")  # whose registries have activations


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
        One that is registered, spikingjelly's, or an activation of torch's, under no other
        prefix than theirs; ``None`` for others, backbones and the like included.

    Examples:
        >>> known_neuron("mmspike.IntegerLIF").__name__, known_neuron("os.system")
        ('IntegerLIF', None)
        >>> known_neuron("mine.LIF") is None
        True
    """
    if inspect.isclass(kind):
        return kind
    prefix, _, name = str(kind).rpartition(".")
    ours, theirs = MODELS.module_dict.get(name), getattr(sj_neuron, name, None)
    activation = getattr(nn.modules.activation, name, None)
    is_ours = inspect.isclass(ours) and not issubclass(ours, BaseModule)
    is_node = inspect.isclass(theirs) and issubclass(theirs, sj_base.StepModule)
    is_activation = getattr(activation, "__module__", "") == _ACTIVATIONS
    if is_ours and (prefix in ("", "mmspike") or prefix.startswith("mmspike.neurons")):
        return ours
    if is_node and (not prefix or prefix.startswith(_NODES)):
        return theirs
    known = is_activation and prefix in ("", "torch.nn", _ACTIVATIONS, *_HOSTS)
    return activation if known and name != "MultiheadAttention" else None


def inference_settings(cls: type | None, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a neuron computes with: the plain values of its config that count in inference.

    Names with an underscore in front are left out: to mmengine, ``_scope_`` is a module to import.

    Args:
        cls: Its class, whose defaults hold where the config says nothing; ``None`` for none.
        cfg: Its config.
    """
    parameters = inspect.signature(cls).parameters.values() if cls is not None else ()
    given = {**{p.name: p.default for p in parameters}, **cfg}
    names = [k for k in given if k not in _OF_TRAINING and not str(k).startswith("_")]
    return {k: given[k] for k in names if is_plain(given[k])}


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, or none."""
    return value is None or isinstance(value, bool | int | float | str)
