"""Words for a model that cannot be built: which part of the config, and what it takes."""

from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from mmengine.registry import MODELS, build_from_cfg

from mmspike.engine.configs import type_name


def explain(error: Exception, model: dict[str, Any]) -> tuple[str, str, str]:
    """Tell why a model cannot be built.

    Args:
        error: What building it raised.
        model: Its config.

    Returns:
        The part of the config, what is wrong there, and the cure.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    key, cls, given = _failing_part(frames, model)
    neuron = _failing_neuron(frames, key, given, model)
    if neuron is not None:
        key, cls, given = neuron
    text = str(error.args[0]) if error.args else type(error).__name__
    if cls is None and isinstance(error, KeyError) and "type" in given:
        return _unknown_type(key, given["type"], text)
    found = re.search(r"unexpected keyword argument '(\w+)'", text)
    name = cls.__name__ if inspect.isclass(cls) else type_name(given or model)
    if found and found[1] in given and cls.__module__.split(".")[0] == "mmspike":
        taken = _arguments(cls)
        near = difflib.get_close_matches(found[1], taken, 1)
        what = f"{name} has no argument {found[1]!r}; it takes {', '.join(taken)}"
        cure = f"write {near[0]} if that is meant, else " if near else ""
        return key, what, f"{cure}leave it out"
    what = "no neuron" if neuron is not None and cls is None else name
    what += f" can{'' if what == 'no neuron' else 'not'} be built ({type(error).__name__}: {text})"
    return key, what, "mend its arguments"


Failing = tuple[str, Any, dict[str, Any]]
"""A part of a config whose building failed: its key, class and config."""


def _failing_part(frames: list[FrameType], model: dict[str, Any]) -> Failing:
    """The innermost part that has a class and a config of its own in the model's config."""
    parts = list(_parts(model, "model"))
    for frame in reversed(frames):
        if frame.f_code is not build_from_cfg.__code__:
            continue
        given, cls = frame.f_locals["cfg"], frame.f_locals.get("obj_cls")
        for key, part in parts:
            # Hosts add to what they are given, such as train_cfg to a head.
            if isinstance(given, dict) and all(k in given and given[k] == part[k] for k in part):
                return key, cls, given
    return "model", None, {}


def _failing_neuron(
    frames: list[FrameType], key: str, given: dict[str, Any], model: dict[str, Any]
) -> Failing | None:
    """The config of a neuron, if that is what failed in a part: its own, or the whole model's."""
    modules = [f.f_globals.get("__name__", "") for f in frames]
    first = next((i for i, m in enumerate(modules) if m.startswith("mmspike.neurons")), None)
    if first is None:
        return None
    seen, change = frames[first].f_locals, given.get("attn_neuron_cfg")
    name = seen["name"] if modules[first].endswith(".arguments") else "neuron_cfg"
    if not name.endswith("neuron_cfg"):  # another check of a type
        return None
    if change is not None and change in (seen.get("override"), seen.get("cfg"), seen.get("value")):
        key = f"{key}.attn_neuron_cfg"
    elif given.get("neuron_cfg") is not None:
        key = f"{key}.neuron_cfg"
    elif model.get("neuron_cfg") is not None:
        key = "model.neuron_cfg"
    else:
        return None
    built = [f for f in frames[first:] if f.f_code is build_from_cfg.__code__]
    if not built:
        return key, None, {}
    return key, built[-1].f_locals.get("obj_cls"), built[-1].f_locals["cfg"]


def _parts(cfg: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All parts of a config that have a type, with their keys."""
    if isinstance(cfg, dict) and "type" in cfg:
        yield key, cfg
    items = cfg.items() if isinstance(cfg, dict) else enumerate(cfg)
    for name, value in items:
        if isinstance(value, dict | list | tuple):
            yield from _parts(value, f"{key}.{name}")


def _unknown_type(key: str, kind: Any, text: str) -> tuple[str, str, str]:
    """Words for a name that no registry has, with the nearest that one has."""
    known = dict.fromkeys(MODELS.module_dict)
    for child in MODELS.children.values():
        for name in child.module_dict:
            known[name if "." not in str(kind) else f"{child.scope}.{name}"] = None
    near = difflib.get_close_matches(str(kind), list(known), 1)
    cure = f"is it {near[0]!r}? " if near else ""
    cure += "give the name of a registered class, and import its module (custom_imports)"
    return f"{key}.type", text.split(". ")[0], cure


def _arguments(cls: Any) -> list[str]:
    """Names of the arguments that a class or function takes, those of its bases too."""
    names: dict[str, None] = {}
    for base in inspect.getmro(cls) if inspect.isclass(cls) else (cls,):
        parameters = inspect.signature(base).parameters.values()
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names.update(dict.fromkeys(p.name for p in parameters if p.kind in named))
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return list(names)
