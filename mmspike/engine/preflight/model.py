"""Whether the model can be built, and the strides of its backbone and neck fit its heads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn

from mmspike.engine.preflight.refusals import explain
from mmspike.engine.preflight.report import Report
from mmspike.layers.checks import expect_sequences_where_read

_IMAGE = 512  # pixels; strides up to 128 leave whole numbers
_MISTAKES = (TypeError, KeyError, ValueError)  # in a config; others may be of files or devices


def check_model(cfg: dict[str, Any], report: Report) -> None:
    """Build a model with a spiking backbone as the runner will, and compare its strides.

    It is built on the meta device, where nothing is computed. What fails there has to fail on the
    CPU too before it is a problem.
    """
    if not isinstance(cfg["model"].get("backbone"), dict):
        return
    try:
        with torch.device("meta"):
            model = _build(cfg)
            strides = _strides(model)
    except Exception as error:
        mistake = _mistake(cfg) if isinstance(error, _MISTAKES) else None
        if mistake is None:  # the runner, which builds it next, tells it better
            report.skip("model", f"the strides, since it cannot be built for that: {error}")
        else:
            report.problem(*explain(mistake, cfg["model"]))
        return
    try:
        expect_sequences_where_read(model)
    except ValueError as error:
        report.problem("model", *str(error).rsplit("; ", 1))
    _check_strides(model, strides, report)


def _build(cfg: dict[str, Any]) -> nn.Module:
    """Build the model from a copy, as hosts change what they are given."""
    given = deepcopy(cfg["model"])
    if cfg.get("data_preprocessor") is not None:  # as mmengine's runner does
        given.setdefault("data_preprocessor", deepcopy(cfg["data_preprocessor"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS.build(given)


def _mistake(cfg: dict[str, Any]) -> Exception | None:
    """What the runner will end on when it builds the model, if that is the config's fault."""
    if "runner_type" in cfg or not all(map(find_spec, _hosts(cfg))):
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            _build(cfg)
    except _MISTAKES as error:
        # The runner starts processes first; torch raises ValueError for that.
        return None if "process group" in str(error) else error
    except Exception:  # such as a file that is not there
        return None
    return None


def _hosts(cfg: dict[str, Any]) -> set[str]:
    """The hosts that a config names as its scope, or in front of the name of a part."""
    text = f"{cfg.get('default_scope')}. {cfg['model']}"
    return {host for host in ("mmdet", "mmseg", "mmpretrain", "mmcv") if f"{host}." in text}


def _check_strides(model: nn.Module, strides: list[int] | None, report: Report) -> None:
    """Compare the strides of a spiking backbone under a neck with those that the heads expect.

    Detectors and segmentors of ours are checked when they are built. In others of the hosts' a
    wrong stride is no error: anchors and RoIs lie elsewhere than the features that they read.
    """
    if not strides:
        return
    for key, expected in _expected_strides(model):
        if expected != strides[: len(expected)]:
            report.problem(
                f"model.{key}",
                f"expects maps of strides {expected}, but backbone and neck give {strides}",
                "choose model.backbone.out_indices with one map per stride, such as (1, 2, 4), or "
                "mmspike.SpikeFPN as the neck",
            )


@torch.no_grad()
def _strides(model: nn.Module) -> list[int] | None:
    """The strides of the maps that heads read, or ``None`` if the backbone does not tell its own.

    A neck that does not tell them is run, on the meta device, where nothing is computed.
    """
    backbone, neck = model.backbone, getattr(model, "neck", None)
    strides = getattr(backbone, "out_strides", None)
    if strides is None or neck is None:
        return strides
    if hasattr(neck, "out_strides"):
        return list(neck.out_strides)
    first = (1, 1) if getattr(neck, "takes_sequences", False) else (1,)  # [T, B] or [B]
    maps = zip(backbone.out_channels, strides, strict=True)
    levels = neck([torch.empty(*first, c, _IMAGE // s, _IMAGE // s) for c, s in maps])
    return [_IMAGE // level.size(-1) for level in levels]


def _expected_strides(model: nn.Module) -> Iterator[tuple[str, list[int]]]:
    """The keys and strides of all parts that expect some."""
    for name, module in model.named_modules():
        generator = getattr(module, "prior_generator", None)
        if generator is not None and name in ("rpn_head", "bbox_head"):
            key = f"{name}.anchor_generator.strides"
            yield key, [max(s) if isinstance(s, tuple) else s for s in generator.strides]
        if hasattr(module, "featmap_strides"):
            yield f"{name}.featmap_strides", list(module.featmap_strides)
