"""Runs all checks on a config."""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmspike.engine.preflight import coco as coco_format
from mmspike.engine.preflight.classifiers import check_teacher, check_topk
from mmspike.engine.preflight.datasets import Leaf, find_leaves
from mmspike.engine.preflight.evaluators import check_mask_metric, check_metric, coco_metrics
from mmspike.engine.preflight.files import check_checkpoints
from mmspike.engine.preflight.folders import check_folders
from mmspike.engine.preflight.heads import check_classes, check_masks
from mmspike.engine.preflight.labels import check_labels
from mmspike.engine.preflight.model import check_model
from mmspike.engine.preflight.report import Report
from mmspike.engine.preflight.schedule import check_batch, check_schedule


def preflight(cfg: Config, mode: str) -> None:
    """Check a config before anything is built from it.

    Args:
        cfg: The config as the runner will see it; not changed.
        mode: ``"train"`` looks at the data for training and validation, at the schedule and at
            what the weights start from, ``"test"`` at the data for testing.

    Raises:
        SystemExit: If something is wrong; it names each key or file, and the cure.
    """
    # One process of torchrun's is enough: it ends the others. Other launchers may not.
    if cfg.get("launcher") == "pytorch" and int(os.environ.get("RANK", 0)) != 0:
        return
    report = Report()
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        if not isinstance(cfg.get("model"), dict):
            report.skip("model", "since the config has none")
            return
        report.attempt("checkpoints", check_checkpoints, cfg, mode)
        report.attempt("model", check_model, cfg)
        if mode == "train":
            report.attempt("model.teacher", check_teacher, cfg)
        parts = ("train", "val") if mode == "train" else ("test",)
        for part in parts:
            report.attempt(f"{part}_dataloader", _check_loader, cfg, part)
    report.end_if_any()


def _check_loader(cfg: Config, part: str, report: Report) -> None:
    """Check the data of training, validation or test, and what goes with it."""
    report.attempt(f"{part}_evaluator", check_topk, cfg, part)
    loader = cfg.get(f"{part}_dataloader")
    images: int | None = None
    if isinstance(loader, dict) and isinstance(loader.get("dataset"), dict):
        key = f"{part}_dataloader.dataset"
        leaves = list(find_leaves(loader["dataset"], key, report))
        report.attempt("num_classes", check_classes, cfg, leaves)
        if part == "train":
            report.attempt("model.roi_head.mask_head", check_masks, cfg, leaves)
        counts = [report.attempt(leaf.key, _check_leaf, cfg, part, leaf) for leaf in leaves]
        if len(leaves) == 1 and leaves[0].key == key:  # a wrapper makes it another number
            images = counts[0]
    if part == "train" and isinstance(loader, dict):
        report.attempt("train_dataloader.batch_size", check_batch, cfg, images)
        report.attempt("param_scheduler", check_schedule, cfg, images)


def _check_leaf(cfg: Config, part: str, leaf: Leaf, report: Report) -> int | None:
    """Check a data set and, if it is evaluated, the metrics.

    Returns:
        How many images it gives, if that is known.
    """
    training = part == "train"
    if leaf.kind == "seg":
        return check_labels(leaf, cfg, training, report) or None
    if leaf.kind == "cls":
        return check_folders(leaf, report)
    key, file = f"{leaf.key}.ann_file", leaf.dataset.ann_file
    content = coco_format.read_coco(file, key, report)
    if content is None:
        return None
    coco_format.check_classes(key, file, content, leaf, report)
    ids = coco_format.check_coco(leaf, content, training, report)
    for key, metric in [] if training else coco_metrics(cfg, f"{part}_evaluator"):
        check_mask_metric(cfg, key, metric, report)
        given = metric.get("ann_file")
        if given is None:
            continue
        truth: Any = content
        if not (os.path.exists(given) and os.path.samefile(given, file)):
            truth = coco_format.read_coco(given, f"{key}.ann_file", report)
        if truth is not None:
            check_metric(key, metric, truth, leaf, ids, report)
    return len(ids)
