"""Errors of models that cannot be built from their config, or run on their images, in a line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.registry import build_from_cfg
from torch import nn

from mmspike.checkpoints import CheckpointError
from mmspike.energy.names import part_of
from mmspike.engine.preflight.refusals import explain
from mmspike.layers.forms import FormError

_OF_SHAPES = re.compile(  # torch's words for tensors that do not fit one another
    r"expected input.* to have \d+ channels|shapes cannot be multiplied|Sizes of tensors must match"
    r"|must match the size of tensor|running_mean should contain|is invalid for input of size"
    r"|Kernel size can't be greater"
)


class MisfitError(ValueError):
    """A model and what it is given do not fit; the message names key and expectation."""


@contextmanager
def misfits_in_words(tool: str, cfg: Config) -> Iterator[None]:
    """End with a line where a model does not fit its config or its images.

    Other errors, also those of checkpoints, are left as they are.

    Args:
        tool: Name of the tool, which the line begins with.
        cfg: The model's config.

    Raises:
        SystemExit: If a part cannot be built, or reads other widths than it is given; the line
            names the part's key in the config, and what was expected there.
    """
    try:
        yield
    except (CheckpointError, FormError):
        raise
    except (TypeError, KeyError, ValueError, AssertionError, RuntimeError) as error:
        words = _in_words(error, cfg.model)
        if words is None:
            raise
        raise SystemExit(f"{tool}: {words}") from error


def _in_words(error: Exception, model: dict[str, Any]) -> str | None:
    """What does not fit, as far as an error tells that."""
    if isinstance(error, MisfitError):
        return str(error)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    building = [f.f_locals for f in frames if f.f_code is build_from_cfg.__code__]
    if any(seen["registry"].name == "model" for seen in building):
        where, what, cure = explain(error, model)
        return " ".join(f"{where}: {what}; {cure}".split())
    modules = [f.f_locals.get("self") for f in frames]
    ran = [module for module in modules if isinstance(module, nn.Module)]
    asserted = isinstance(error, AssertionError)
    if not ran or not (asserted or _OF_SHAPES.search(str(error))):
        return None
    names = {module: name for name, module in ran[0].named_modules()}
    name = next((names[m] for m in reversed(ran) if m in names), "")
    text = str(error) or str(traceback.extract_tb(error.__traceback__)[-1].line)
    return _reading(name, ran[0], model, " ".join(text.split()))


def _inside(value: Any, key: str) -> Any:
    """A part of a config; ``None`` if there is none."""
    if isinstance(value, list | tuple) and key.isdecimal():
        return value[int(key)] if int(key) < len(value) else None
    return value.get(key) if isinstance(value, dict) else None


def _reading(name: str, whole: nn.Module, model: dict[str, Any], text: str) -> str:
    """Words for a part of a model that reads what does not fit."""
    part = part_of(name) if name else ""
    module, given = whole.get_submodule(part), model
    if isinstance(module, nn.Sequential | nn.ModuleList):  # parts in a row, such as two necks
        part = ".".join([part, *name.removeprefix(f"{part}.").split(".")[:1]])
        module = whole.get_submodule(part)
    for key in part.split("."):
        given = _inside(given, key)
    channels = given.get("in_channels") if isinstance(given, dict) else None
    channels = getattr(module, "in_channels", None) if channels is None else channels
    key = f"model.{part}" if part else "model"
    place = f"{name}: " if name != part else ""
    words = f"{key}: {type(module).__name__} does not fit what it is given ({place}{text})"
    return words if channels is None else f"{words}; {key}.in_channels is {channels}"
