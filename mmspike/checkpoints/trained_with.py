"""Whether a model computes as the one did that the weights of a file were trained in.

Neurons, time steps, attention heads and scales are not in weights: a model with others loads them,
and computes something else. The file says which they were, see :mod:`mmspike.checkpoints.record`;
parts of the model say what they have, see :class:`mmspike.neurons.protocols.Configured` and
:class:`mmspike.neurons.protocols.ChoosesNeuron`.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmspike.checkpoints.reading import CheckpointError
from mmspike.checkpoints.record import UNKNOWN
from mmspike.layers.attention import ATTN_NEURON
from mmspike.neurons import name_of
from mmspike.neurons.build import AtRest
from mmspike.neurons.known import inference_settings, is_plain, known_neuron, short_name
from mmspike.neurons.protocols import ChoosesNeuron, Configured

CHANGES = ("neuron_cfg", "time_steps", "num_heads", "attn_scale", "attn_neuron_cfg")
"""What may differ between any model and that of a file, by the names of arguments."""
_SHORT = {"time_steps": "T"}
_LONG = {short: name for name, short in _SHORT.items()}


def warn_if_trained_otherwise(
    parts: Mapping[str, nn.Module],
    trained: Mapping[str, Any],
    file: str | os.PathLike[str],
    allow_changed: Sequence[str] = (),
    key: str = "",
) -> str:
    """Say, in a line, where a model differs from that of a file in what is not in the weights.

    A warning, or an information where every difference is one that is meant.

    Args:
        parts: The parts whose weights are loaded, by their names in a whole model.
        trained: The model of the file, see :func:`mmspike.checkpoints.record.model_config`; empty
            where the file tells nothing, as the published ones.
        file: Where it was read.
        allow_changed: Differences that are meant, some of :func:`changes_of` the model.
        key: Where the model stands in a config, if it is not ``model``.

    Returns:
        The differences that are not meant, in words; empty if there are none.
    """
    found: dict[bool, dict[str, list[str]]] = {True: {}, False: {}}
    for name, part in _parts(trained):
        module = parts.get(name)
        if module is not None:
            for change, words in _differences(module, part, trained.get("neuron_cfg")):
                found[change in allow_changed].setdefault(words, []).append(name)
    in_words = {
        meant: "; ".join(f"{', '.join(names)}: {words}" for words, names in differences.items())
        for meant, differences in found.items()
    }
    for meant, level in ((True, logging.INFO), (False, logging.WARNING)):
        if in_words[meant]:
            why = ", as allow_changed says" if meant else ""
            print_log(
                f"{key and f'{key}: '}{file} was trained with other settings, which are not in "
                f"its weights{why}: {in_words[meant]}",
                "current",
                level=level,
            )
    return in_words[False]


def changes_of(model: nn.Module) -> tuple[str, ...]:
    """What may differ between a model and that of a file, settings of parts of one's own too."""
    own = [name for module in model.modules() for name in _settings(module)]
    return tuple(dict.fromkeys([*CHANGES, *own]))


def read_names(argument: str, value: Any, known: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names that an argument gives, one or several; ``T`` is ``time_steps`` where that is known.

    Args:
        argument: What it is called.
        value: What was given.
        known: The names that there are; ``None`` for any.

    Raises:
        CheckpointError: If it is something else; it names argument, expectation and value.
    """
    given = (value,) if isinstance(value, str) else value
    several = isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)
    if several and known is not None:
        given = [_LONG.get(name, name) for name in given]
    if not several or not (known is None or set(given) <= set(known)):
        expected = "names of tensors or parts" if known is None else f"some of {', '.join(known)}"
        raise CheckpointError(f"{argument} must be {expected}, got {value!r}")
    return tuple(given)


def _differences(module: nn.Module, part: Mapping, common: Any) -> Iterator[tuple[str, str]]:
    """What differs in a part, by its name, and what was and is, in words."""
    neuron = first_neuron(module)
    cfg = neuron_then(module, part, common)
    if neuron is not None and cfg is not None:
        was, is_ = _described(neuron, cfg)
        if was != is_:
            yield "neuron_cfg", f"{was} then, {is_} now"
        yield from _attn_differences(module, part, neuron, cfg)
    then, now = _settings(module, part), _settings(module)
    for name in now:
        if name in then and then[name] != now[name]:
            short = _SHORT.get(name, name)
            yield name, f"{short} = {then[name]} then, {short} = {now[name]} now"


def _attn_differences(
    module: nn.Module, part: Mapping, neuron: nn.Module, cfg: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """How the neuron after the attention differs, where that is not because the others differ."""
    attn_neuron, change = first_neuron(module, "attn_neuron"), part.get("attn_neuron_cfg")
    takes_change = "attn_neuron_cfg" in inspect.signature(type(module)).parameters
    if attn_neuron is None or not takes_change or not (change is None or _is_told(change, "")):
        return
    others_now = {"type": type(_node(neuron)), **_now(neuron, ())}
    (was, is_), (would_be, now) = (
        _described(attn_neuron, _attn_neuron_of(others, change)) for others in (cfg, others_now)
    )
    if was != is_ and would_be != now:
        yield "attn_neuron_cfg", f"attn_neuron_cfg = {was} then, {is_} now"


def _attn_neuron_of(others: Mapping[str, Any], change: Mapping | None) -> Mapping[str, Any]:
    """The config of the neuron after the attention, where all others have a config."""
    if change is None:
        takes = inference_settings(known_neuron(others["type"]), {})
        change = {k: v for k, v in ATTN_NEURON.items() if k in takes}
    return change if "type" in change else {**others, **change}


def _is_told(cfg: Any, default: Any = None) -> bool:
    """Whether a neuron's config can be read, and its type is a name."""
    return isinstance(cfg, Mapping) and isinstance(cfg.get("type", default), str)


def neuron_then(module: nn.Module, part: Mapping, common: Any) -> Mapping[str, Any] | None:
    """The config of the neuron that a part of a file had.

    Args:
        module: The part now.
        part: Its config in the file.
        common: The ``neuron_cfg`` of the file's model.

    Returns:
        The config; ``None`` if the file's is none that can be read.
    """
    cfg = part.get("neuron_cfg") or common or None
    if cfg is not None and not _is_told(cfg):
        return None
    if isinstance(module, ChoosesNeuron):
        return module.neuron_of(cfg)
    return cfg or {"type": "LIF"}


def _settings(module: nn.Module, part: Mapping | None = None) -> dict[str, Any]:
    """What a part, or a config of it, computes with beside weights and neurons."""
    if isinstance(module, Configured):
        return module.beside_weights(part)
    name = "time_steps"
    value = getattr(module, name, None)
    if part is not None:
        parameter = inspect.signature(type(module)).parameters.get(name)
        value = part.get(name, getattr(parameter, "default", None))
    return {name: value} if isinstance(value, int) else {}


def _described(neuron: nn.Module, cfg: Mapping[str, Any]) -> tuple[str, str]:
    """The neuron of a config, and that of a model, in words that are equal if they compute alike.

    The settings are those that tell the two apart, or those of the config if the kinds differ.
    """
    kind, now, known = short_name(cfg["type"]), name_of(neuron), known_neuron(cfg["type"])
    if known is None and known_neuron(now) is type(_node(neuron)):
        kind = str(cfg["type"])  # one of somebody's, of whatever name
    was = inference_settings(known, cfg)
    is_ = _now(neuron, was if kind == now else {})
    if kind == now:
        differ = [k for k in is_ if k in was and was[k] != is_[k]]
        was, is_ = ({k: x[k] for k in differ} for x in (was, is_))
    return _call(kind, was), _call(now, is_)


def describe_neuron(neuron: nn.Module) -> str:
    """A neuron in words: its class, and with what it computes.

    Examples:
        >>> from mmspike import IntegerLIF
        >>> describe_neuron(IntegerLIF())
        'IntegerLIF(levels=4, beta=0.5, normalize=True)'
    """
    return _call(name_of(neuron), _now(neuron, ()))


def _now(neuron: nn.Module, others: Iterable[str]) -> dict[str, Any]:
    """What a neuron computes with, by the names of its arguments and others."""
    node = _node(neuron)
    names = dict.fromkeys([*inference_settings(type(node), {}), *others])
    return {k: getattr(node, k) for k in names if is_plain(getattr(node, k, UNKNOWN))}


def _node(neuron: nn.Module) -> nn.Module:
    return neuron.node if isinstance(neuron, AtRest) else neuron


def _call(kind: str, settings: Mapping[str, Any]) -> str:
    return f"{kind}({', '.join(f'{k}={v}' for k, v in settings.items())})"


def first_neuron(module: nn.Module, place: str = "neuron") -> nn.Module | None:
    """What stands in a neuron's place, whether it spikes or not; ``None`` where nothing does."""
    for name, child in module.named_modules():
        if name.endswith(place) and not isinstance(child, nn.Identity):
            return child
    return None


def _parts(cfg: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The innermost parts of a model's config that have a type, by their names in the model."""
    inner = {k: v for k, v in cfg.items() if isinstance(v, Mapping) and _is_part(k, v)}
    for key, part in inner.items():
        yield from _parts(part, f"{name}.{key}" if name else key)
    several = any(k.endswith("head") and v and k not in inner for k, v in cfg.items())
    if not inner and name and not several:  # the heads of a cascade name neurons of their own
        yield name, cfg


def _is_part(key: str, value: Mapping[str, Any]) -> bool:
    return "type" in value and (key in ("backbone", "neck") or key.endswith("head"))
