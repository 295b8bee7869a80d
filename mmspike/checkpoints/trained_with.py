"""With which neurons, and how many time steps, the weights of a file were trained.

Neither is in the weights: a model with others loads them, and computes something else. But a
training writes its config beside the weights, as text. It is read here, never run.
"""

from __future__ import annotations

import ast
import inspect
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mmspike.neurons import LIF, IntegerLIF, name_of
from mmspike.neurons.build import AtRest

_OF_TRAINING = {"type", "surrogate", "surrogate_function", "detach_reset", "backend", "step_mode"}
"""Settings of neurons that change nothing in inference."""
CONFIG_TEXT = "mmspike_config_text"
"""Key under which the text of a config goes on, of files that are given to mmengine."""
_UNKNOWN = object()
"""The value of what is no plain value."""


def warn_of_other_neurons(
    model: nn.Module, content: Any, file: str | os.PathLike[str], only: str = ""
) -> None:
    """Warn, in a line, if weights were trained with other neurons, or another T, than a model has.

    Args:
        model: A whole model, or a part of one.
        content: What was read; files without a config, such as the published ones, tell nothing.
        file: Where it was read.
        only: Name of the part that ``model`` is; empty if it is whole.
    """
    trained = _model_config(content)
    parts = {only: trained.get(only)} if only else dict(_parts(trained))
    found: dict[str, list[str]] = {}
    for name, part in parts.items():
        module = _module(model, "" if only else name)
        if module is not None and isinstance(part, Mapping):
            for words in _differences(module, part, trained.get("neuron_cfg")):
                found.setdefault(words, []).append(name)
    if found:
        words = "; ".join(f"{', '.join(names)}: {words}" for words, names in found.items())
        print_log(
            f"{file} was trained with other neurons or time steps, which are not in "
            f"its weights: {words}",
            "current",
            level=logging.WARNING,
        )


def _differences(module: nn.Module, part: Mapping, common: Any) -> Iterator[str]:
    """What was, and what is, of the neurons and time steps of a part."""
    neuron = next(_neurons(module), None)
    default = {"type": "IntegerLIF" if "ESpikeFormer" in str(part.get("type")) else "LIF"}
    cfg = part.get("neuron_cfg") or common or default
    if str(part.get("type")).endswith("SpikeClsHead") and "Integer" in str(cfg):
        cfg = {**cfg, "normalize": False}  # which it sets itself
    if neuron is not None and isinstance(cfg, Mapping):
        was, is_ = _described(neuron, cfg)
        if was != is_:
            yield f"{was} then, {is_} now"
    steps = getattr(module, "time_steps", None)
    trained_steps = part.get("time_steps", part.get("T", 1))
    if isinstance(steps, int) and isinstance(trained_steps, int) and steps != trained_steps:
        yield f"T = {trained_steps} then, T = {steps} now"


def _described(neuron: nn.Module, cfg: Mapping[str, Any]) -> tuple[str, str]:
    """The neuron of a config, and that of a model, in words that are equal if they compute alike.

    The settings are those that tell the two apart, or those of the config if the kinds differ.
    """
    kind, now = str(cfg.get("type")).rsplit(".", 1)[-1], name_of(neuron)
    was = _settings({"LIF": LIF, "IntegerLIF": IntegerLIF}.get(kind), cfg)
    node = neuron.node if isinstance(neuron, AtRest) else neuron
    ours = {"LIF": LIF, "IntegerLIF": IntegerLIF}.get(now)
    names = _settings(ours, {}) if ours else was
    is_ = {k: getattr(node, k) for k in names if _is_plain(getattr(node, k, _UNKNOWN))}
    if kind == now:
        differ = [k for k in is_ if k in was and was[k] != is_[k]]
        was, is_ = ({k: x[k] for k in differ} for x in (was, is_))
    return _call(kind, was), _call(now, is_)


def _settings(cls: type | None, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings of a neuron's config, with the defaults of its class."""
    parameters = inspect.signature(cls).parameters.values() if cls is not None else ()
    given = {**{p.name: p.default for p in parameters}, **cfg}
    return {k: v for k, v in given.items() if k not in _OF_TRAINING and _is_plain(v)}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _call(kind: str, settings: Mapping[str, Any]) -> str:
    return f"{kind}({', '.join(f'{k}={v}' for k, v in settings.items())})"


def _neurons(module: nn.Module) -> Iterator[nn.Module]:
    """What stands in a neuron's place, whether it spikes or not; none where nothing does."""
    for name, child in module.named_modules():
        if name.endswith("neuron") and not isinstance(child, nn.Identity):
            yield child


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
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


# Reading a config's text.


def _model_config(content: Any) -> Mapping[str, Any]:
    """The model of the config that a training has written into a checkpoint; empty without one.

    Of mmengine's ``meta["cfg"]``, Python whose values are literals and calls of ``dict``.
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    text = meta.get("cfg") or meta.get(CONFIG_TEXT) if isinstance(meta, Mapping) else None
    try:
        body = ast.parse(text).body if isinstance(text, str) else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    for line in body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "model":
            model = _value(line.value)
            return model if isinstance(model, Mapping) else {}
    return {}


def _value(node: ast.expr) -> Any:
    """What an expression of literals and ``dict`` stands for; nothing of it is run."""
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args
        if not named or any(k.arg is None for k in node.keywords):
            return _UNKNOWN
        return {str(k.arg): _value(k.value) for k in node.keywords}
    if isinstance(node, ast.Dict):
        items = zip(node.keys, node.values, strict=True)
        return {k.value: _value(v) for k, v in items if isinstance(k, ast.Constant)}
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return _UNKNOWN
