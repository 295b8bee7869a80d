"""Evaluators: whether they score what is predicted."""

from __future__ import annotations

import os
from typing import Any

from mmengine.registry import MODELS

from mmspike.engine.configs import as_list, find_class, type_name
from mmspike.engine.preflight import coco as coco_format
from mmspike.engine.preflight.datasets import Leaf
from mmspike.engine.preflight.report import Report, listed

_BOXES_ALONE = ("RetinaHead", "RTMDetSepBNHead", "DINOHead")  # of one stage, and those from them


def coco_metrics(cfg: dict[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    """The keys and configs of the COCO metrics of an evaluator."""
    given = cfg.get(key)
    several = isinstance(given, list | tuple)
    return [
        (f"{key}.{i}" if several else key, metric)
        for i, metric in enumerate(as_list(given))
        if type_name(metric) == "CocoMetric" and not metric.get("backend_args")
    ]


def check_metric(
    key: str,
    metric: dict[str, Any],
    truth: dict[str, Any],
    leaf: Leaf,
    ids: set[Any],
    report: Report,
) -> None:
    """Compare a metric's annotation file with the images that are predicted.

    Args:
        key: Where the metric stands.
        metric: Its config.
        truth: The content of its ``ann_file``.
        leaf: The data set that is evaluated.
        ids: The images that it gives.
        report: Learns of a metric that scores others.
    """
    file, own = metric["ann_file"], leaf.dataset.ann_file
    known = {image["id"] for image in truth["images"]}
    strange = ids - known
    if strange:
        report.problem(
            f"{key}.ann_file",
            f"{file} does not have {len(strange)} of the {len(ids)} images of {leaf.key}",
            f"give the data set's own file, {own}",
        )
        return
    if not os.path.samefile(file, own):
        coco_format.check_classes(f"{key}.ann_file", file, truth, leaf, report)
    _check_share(key, metric, len(known), len(ids), leaf, report)
    if "segm" in as_list(metric.get("metric", "bbox")):
        bare = [a for a in truth.get("annotations", []) if "segmentation" not in a]
        if bare:
            report.problem(
                f"{key}.metric",
                f"has segm, but {len(bare)} annotations of {file} have no segmentation (first "
                f"{bare[0]['id']})",
                'give them masks, or evaluate metric="bbox" alone',
            )


def _check_share(
    key: str, metric: dict[str, Any], known: int, used: int, leaf: Leaf, report: Report
) -> None:
    """Say so if more images are scored than predicted: the others count as missed."""
    if metric.get("format_only") or used == known:
        return
    file = metric["ann_file"]
    what = f"scores the {known} images of {file}, but {leaf.key} gives {used}: the rest are missed"
    if leaf.cfg.get("indices") is not None:
        report.warn(f"{key}.ann_file", f"{what} (its indices={leaf.cfg['indices']})")
    elif not os.path.samefile(file, leaf.dataset.ann_file):
        report.problem(f"{key}.ann_file", what, f"give the data set's own, {leaf.dataset.ann_file}")


def check_mask_metric(
    cfg: dict[str, Any], key: str, metric: dict[str, Any], report: Report
) -> None:
    """See that masks are evaluated only of a model that predicts some."""
    part = _part_without_masks(cfg["model"])
    if part and "segm" in as_list(metric.get("metric")):
        metrics = listed(as_list(metric["metric"]))
        report.problem(f"{key}.metric", f"is {metrics}, but {part}", 'evaluate metric="bbox" alone')


def _part_without_masks(model: dict[str, Any]) -> str | None:
    """Words for the part of a detector that would have to predict masks, and does not."""
    if model.get("roi_head"):
        return None if model["roi_head"].get("mask_head") else "model.roi_head has no mask_head"
    head = model.get("bbox_head")
    if not isinstance(head, dict) or model.get("mask_head"):
        return None
    bases = {cls.__name__ for cls in getattr(find_class(MODELS, head), "__mro__", ())}
    alone = bases.intersection(_BOXES_ALONE)
    return f"model.bbox_head ({type_name(head)}) predicts boxes alone" if alone else None
