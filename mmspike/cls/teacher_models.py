"""Classifiers to learn from: timm's, mmpretrain's and ours, by name, config file or config."""

from __future__ import annotations

import math
import os
from copy import deepcopy
from numbers import Real
from pathlib import Path
from typing import Any

import timm
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS as HOST_MODELS
from torch import nn

from mmspike.checkpoints import CheckpointError, load_whole, read_checkpoint
from mmspike.checkpoints.sources import find_tensors, strip_wrappers
from mmspike.layers.arguments import is_count, refuse_unless

Model = str | dict[str, Any]
File = str | os.PathLike[str]


def is_named(model: Model) -> bool:
    """Whether a model is given by a name, under which weights may be published."""
    return isinstance(model, str) and not model.endswith(".py")


def check_arguments(model: Any, checkpoint: Any, mean: Any, std: Any, num_classes: Any) -> None:
    """Check what a config file gives; the arguments are those of :class:`mmspike.cls.Teacher`.

    Raises:
        ValueError: At the first that cannot be right; it names argument and expectation.
    """
    cfg = model.get("model") if isinstance(model, Config) else model
    ok = bool(cfg) and (isinstance(cfg, str) or (isinstance(cfg, dict) and "type" in cfg))
    expected = "the name of a model, a config file, or the config of a model, with its type"
    refuse_unless(ok, "Teacher", "model", expected, model)
    ok = checkpoint is None or isinstance(checkpoint, str | os.PathLike)
    refuse_unless(ok, "Teacher", "checkpoint", "None or a file", checkpoint)
    for name, value, least in (("mean", mean, -math.inf), ("std", std, 0)):
        several = isinstance(value, list | tuple) and len(value) == 3
        ok = several and all(isinstance(v, Real) and least < float(v) < math.inf for v in value)
        expected = "None, or three numbers" + (" above 0" if name == "std" else "")
        expected += ", of red, green and blue"
        refuse_unless(value is None or ok, "Teacher", name, expected, value)
    ok = num_classes is None or is_count(num_classes)
    refuse_unless(ok, "Teacher", "num_classes", "None, or at least 1", num_classes)
    if num_classes is not None and not (is_named(model) and timm.is_model(model)):
        raise ValueError(
            f"model.teacher.num_classes is of timm's models alone, got {num_classes}: "
            f"{describe(model)} has as many classes as its own config says; leave it out"
        )


def describe(model: Model) -> str:
    """A model in a message."""
    if isinstance(model, str):
        return repr(model)
    return f"a {(model.model if isinstance(model, Config) else model).get('type')}"


def build_teacher(model: Model, checkpoint: File | None, num_classes: int | None) -> nn.Module:
    """Build a trained classifier.

    Args:
        model: Name of a timm or mmpretrain model, config file, or config of a model.
        checkpoint: Its weights; ``None`` fetches those that are published under its name.
        num_classes: Classes of a timm model, where they are not those of its published weights.

    Raises:
        CheckpointError: If there is no such model or checkpoint, it is another model's, or cannot
            be fetched.
    """
    if checkpoint is not None:
        file = os.fspath(checkpoint)
        if "://" not in file and not Path(file).expanduser().is_file():
            raise CheckpointError(
                f"model.teacher.checkpoint: there is no file {file}; give the weights of "
                f"{describe(model)}"
            )
    if is_named(model) and timm.is_model(model):
        teacher = _from_timm(str(model), checkpoint is None, num_classes)
    elif is_named(model):
        teacher, checkpoint = _from_mmpretrain(str(model), checkpoint)
    else:
        teacher = _from_config(model)
    if checkpoint is not None:
        try:
            load_whole(teacher, checkpoint, key="model.teacher")
        except CheckpointError as error:
            cure = _other_classes(teacher, checkpoint)
            raise CheckpointError(f"model.teacher ({describe(model)}): {error}{cure}") from error
    return teacher


def _other_classes(teacher: nn.Module, checkpoint: File) -> str:
    """What to do about a file of a timm model with other classes; nothing where it is not that."""
    name = getattr(teacher, "pretrained_cfg", {}).get("classifier")
    try:
        tensors = find_tensors(read_checkpoint(checkpoint, hashed=False))[0]
    except CheckpointError:
        return ""
    weight = strip_wrappers(tensors).get(f"{name}.weight")
    given = None if weight is None else weight.size(0)
    if given in (None, teacher.state_dict()[f"{name}.weight"].size(0)):
        return ""
    return f"; the file tells {given} classes apart: set model.teacher.num_classes={given}"


def _from_timm(name: str, fetch: bool, num_classes: int | None) -> nn.Module:
    options = {} if num_classes is None else {"num_classes": num_classes}
    try:
        return timm.create_model(name, pretrained=fetch, **options)
    except Exception as error:  # of the network, or of a cache without the file
        if not fetch:
            raise
        raise CheckpointError(
            f"model.teacher: the weights of timm's {name} cannot be fetched "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); `pip install "
            "huggingface_hub` on a machine with a network, or set model.teacher.checkpoint=FILE"
        ) from error


def _from_mmpretrain(name: str, checkpoint: File | None) -> tuple[nn.Module, File]:
    try:
        entry = ModelHub.get(name)
    except ValueError:
        near = timm.list_models(f"{name.split('.')[0][:6]}*")[:5]
        raise CheckpointError(
            f"model.teacher.model: neither timm nor mmpretrain has a model {name!r}"
            + (f"; timm has {', '.join(near)}" if near else "")
        ) from None
    if checkpoint is None and not entry.weights:
        raise CheckpointError(
            f"model.teacher: mmpretrain has no weights of {name}; set model.teacher.checkpoint=FILE"
        )
    return _from_config(entry.config), checkpoint or entry.weights


def _from_config(given: Any) -> nn.Module:
    """The classifier of a whole config or of a model's; what it learnt from itself is left out."""
    scope, cfg = "mmpretrain", given
    if isinstance(given, str):
        if not Path(given).is_file():
            raise CheckpointError(f"model.teacher.model: there is no config {given}")
        given = Config.fromfile(given)
    if isinstance(given, Config):
        scope, cfg = given.get("default_scope", scope), given.model
        if given.get("data_preprocessor"):
            cfg.setdefault("data_preprocessor", given.data_preprocessor)
    cfg = {key: value for key, value in deepcopy(cfg).items() if key not in ("teacher", "init_cfg")}
    with DefaultScope.overwrite_default_scope(scope):
        return HOST_MODELS.build(cfg)
