"""Initialising models as their ``init_cfg`` says, pretrained weights whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from torch import nn

from mmspike.checkpoints.loading import load_pretrained
from mmspike.checkpoints.reading import CheckpointError
from mmspike.checkpoints.report import LoadReport
from mmspike.checkpoints.trained_with import changes_of, read_names


def init_weights(module: BaseModule, otherwise: Callable[[], None]) -> None:
    """Initialise a module of mmengine's as its ``init_cfg`` says, pretrained weights whole.

    Args:
        module: As :func:`load_pretrained` takes it. Entries of its ``init_cfg`` of type
            ``Pretrained`` come last; they have ``checkpoint``, and optionally ``prefix``,
            ``strict``, ``allow_missing`` and ``allow_changed``. ``map_location`` is accepted and
            has no effect: numbers go where the model is.
        otherwise: mmengine's way, for the other entries.

    Raises:
        CheckpointError: See :func:`load_pretrained`.
        TypeError: If a ``Pretrained`` entry has another key.
    """
    given = module.init_cfg
    cfgs = given if isinstance(given, list) else [given] if given else []
    kinds = ("Pretrained", "mmengine.Pretrained", PretrainedInit)
    pretrained = [cfg for cfg in cfgs if cfg["type"] in kinds]
    if module.is_init or not pretrained:
        otherwise()
        return
    rest = [cfg for cfg in cfgs if cfg not in pretrained]
    whole = all(cfg.get("strict", True) and not cfg.get("allow_missing") for cfg in pretrained)
    if rest or not whole:  # files may lack some
        module.init_cfg = rest
        otherwise()
        module.init_cfg = given
    for cfg in pretrained:
        _init_from(module, cfg)
    module.is_init = True


_OPTIONS = ("prefix", "strict", "allow_missing", "allow_changed")


def _init_from(model: nn.Module, init_cfg: Mapping[str, Any]) -> LoadReport:
    options = {k: v for k, v in init_cfg.items() if k not in ("type", "checkpoint", "map_location")}
    if set(options) - set(_OPTIONS) or "checkpoint" not in init_cfg:
        raise TypeError(
            f"init_cfg of type 'Pretrained' takes checkpoint, {', '.join(_OPTIONS)} and "
            f"map_location; got {dict(init_cfg)}"
        )
    key = f"model.{'' if hasattr(model, 'backbone') else 'backbone.'}init_cfg"
    for name in set(options) & {"allow_missing", "allow_changed"}:
        known = changes_of(model) if name == "allow_changed" else None
        given = () if options[name] is None else options[name]
        options[name] = read_names(f"{key}.{name}", given, known)
    file = os.fspath(init_cfg["checkpoint"])
    if not file.startswith(("http://", "https://")) and not Path(file).expanduser().is_file():
        raise CheckpointError(
            f"pretrained checkpoint {file}: no such file. Put the published weights there "
            "(docs/transfer.md says where they are), name another file with --cfg-options "
            f"{key}.checkpoint=FILE, or start from scratch with --cfg-options {key}=None"
        )
    return load_pretrained(model, file, **{k: v for k, v in options.items() if v is not None})
