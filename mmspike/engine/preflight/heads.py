"""The model's heads: as many classes as the data has, and strides that agree."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn

from mmspike.engine.configs import find_class, type_name
from mmspike.engine.preflight.datasets import Leaf
from mmspike.engine.preflight.report import Report, counted

_HEADS = (
    "bbox_head",
    "mask_head",
    "mask_iou_head",
    "point_head",
    "decode_head",
    "auxiliary_head",
)
_OTHER_CLASSES = ("STDCHead", "FusedSemanticHead")  # heads whose classes are not the data's
_IMAGE = 512  # pixels; strides up to 128 leave whole numbers


def check_classes(cfg: dict[str, Any], leaves: list[Leaf], report: Report) -> None:
    """Compare ``num_classes`` of all heads with the classes of the data sets.

    Left alone: region proposals, masks and boxes without class, binary segmentation with one
    channel, and models that read the names of classes as text.
    """
    model = cfg["model"]
    if any("language_model" in part for part in (model, model.get("detector") or {})):
        return
    for leaf in leaves:
        if leaf.classes is None:
            report.skip(leaf.key, "since its classes are not told (metainfo.classes)")
            continue
        if "thing_classes" in leaf.dataset.metainfo:  # panoptic: heads share the classes out
            continue
        if leaf.classes in report.compared:  # validation mostly has those of training
            continue
        report.compared.add(leaf.classes)
        count = len(leaf.classes)
        for key, head in find_heads(model, "model"):
            given = _num_classes(head)
            binary = leaf.kind == "seg" and count <= 2 and 1 in (given, head.get("out_channels"))
            if given in (None, count) or head.get("class_agnostic") or binary:
                continue
            report.problem(
                f"{key}.num_classes",
                f"is {given}, but {leaf.key} has {counted(leaf.classes, 'class', 'classes')}",
                f"set it to {count}, or mend {leaf.key}.metainfo.classes",
            )


def find_heads(cfg: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The keys and configs of all heads that tell classes apart, those of a cascade one by one."""
    if isinstance(cfg, list | tuple):
        for i, value in enumerate(cfg):
            yield from find_heads(value, f"{key}.{i}")
    if not isinstance(cfg, dict):
        return
    is_head = any(part in _HEADS for part in key.split(".")[-2:])
    if is_head and "type" in cfg:
        if type_name(cfg) not in _OTHER_CLASSES:
            yield key, cfg
        return
    for name, value in cfg.items():
        yield from find_heads(value, f"{key}.{name}")


def _num_classes(head: dict[str, Any]) -> int | None:
    """What a head's config gives, or its class by default."""
    if "num_classes" in head:
        return head["num_classes"]
    for cls in inspect.getmro(find_class(MODELS, head) or object):
        parameter = inspect.signature(cls.__init__).parameters.get("num_classes")
        if parameter is not None:
            return parameter.default if isinstance(parameter.default, int) else None
    return None


def check_masks(cfg: dict[str, Any], leaves: list[Leaf], report: Report) -> None:
    """See that the masks are loaded that a mask head trains on."""
    head = (cfg["model"].get("roi_head") or {}).get("mask_head")
    for leaf in leaves if head else ():
        loader = leaf.loader()
        if leaf.kind == "coco" and loader is not None and not loader.get("with_mask"):
            report.problem(
                f"{leaf.key}.pipeline",
                "loads no masks, but model.roi_head.mask_head trains on them",
                "set LoadAnnotations with_mask=True, or model.roi_head.mask_head=None",
            )


def check_strides(cfg: dict[str, Any], report: Report) -> None:
    """Compare the strides of a spiking backbone under a neck with those that the heads expect.

    Detectors and segmentors of ours are checked when they are built. In others of the hosts' a
    wrong stride is no error: anchors and RoIs lie elsewhere than the features that they read.
    """
    if not isinstance(cfg["model"].get("backbone"), dict):
        return
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            model = MODELS.build(deepcopy(cfg["model"]))  # hosts change what they are given
            strides = _strides(model)
    except Exception as error:  # the runner, which builds it next, tells it better
        report.skip("model", f"the strides, since it cannot be built for that: {error}")
        return
    for key, expected in _expected_strides(model) if strides else ():
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
    maps = zip(backbone.out_channels, strides, strict=True)
    levels = neck([torch.empty(1, c, _IMAGE // s, _IMAGE // s) for c, s in maps])
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
