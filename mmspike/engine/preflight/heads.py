"""The model's heads: as many classes as the data has, and the masks that they train on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.registry import MODELS

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
    "head",  # of a classifier
)
_OTHER_CLASSES = ("STDCHead", "FusedSemanticHead")  # heads whose classes are not the data's


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
            given = num_classes_of(head)
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


def num_classes_of(head: dict[str, Any]) -> int | None:
    """What a head's config gives, or its class by default."""
    if "num_classes" in head:
        return head["num_classes"]
    for cls in inspect.getmro(find_class(MODELS, head) or object):
        init = inspect.signature(cls.__init__)  # type: ignore[misc]
        parameter = init.parameters.get("num_classes")
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
