"""Classifiers: accuracies that their classes allow, the teacher, and names of class folders."""

from __future__ import annotations

import re
from typing import Any

from mmspike.engine.configs import as_list, type_name
from mmspike.engine.preflight.datasets import Leaf
from mmspike.engine.preflight.heads import num_classes_of
from mmspike.engine.preflight.report import Report, listed


def check_topk(cfg: dict[str, Any], part: str, report: Report) -> None:
    """See that no accuracy is asked for among more classes than the head tells apart.

    mmpretrain ends on it after the first epoch, or, of its heads with ``cal_acc``, in the first
    step.

    Args:
        cfg: The whole config.
        part: ``"train"``, ``"val"`` or ``"test"``.
        report: Learns of such accuracies.
    """
    head = cfg["model"].get("head")
    if not isinstance(head, dict):
        return
    classes = num_classes_of(head)
    given = cfg.get(f"{part}_evaluator")
    several = isinstance(given, list | tuple)
    asked = {
        f"{part}_evaluator.{i}.topk" if several else f"{part}_evaluator.topk": metric["topk"]
        for i, metric in enumerate(as_list(given))
        if type_name(metric) == "Accuracy" and "topk" in metric
    }
    if part == "train" and head.get("cal_acc") and type_name(head) != "SpikeClsHead":
        asked["model.head.topk"] = head.get("topk", 1)
    for key, topk in asked.items():
        ks = as_list(topk)
        if not ks or not all(type(k) is int and k >= 1 for k in ks):
            report.problem(key, f"is {topk!r}", "give a whole number of at least 1, or several")
        elif isinstance(classes, int) and max(ks) > classes:
            fitting = tuple(k for k in ks if k <= classes) or (1,)
            what = f"is {topk!r}, but model.head tells {classes} classes apart"
            report.problem(key, what, f"set it to {fitting}")


def check_teacher(cfg: dict[str, Any], report: Report) -> None:
    """See that a head that learns from a teacher has one."""
    model = cfg["model"]
    head = model.get("head")
    if isinstance(head, dict) and head.get("distillation") and not model.get("teacher"):
        report.problem(
            "model.teacher",
            f"is {model.get('teacher')!r}, but model.head learns from one (distillation=True)",
            "give dict(type='mmspike.cls.Teacher', model=...), or set "
            "model.head.distillation=False",
        )


def compare_names(leaf: Leaf, folders: list[str], report: Report) -> None:
    """Compare the names of classes with those of their folders, which are numbered in their order.

    A class that another folder is named after is taken for another one. Names that no folder has
    may be meant, as those of ImageNet are, and are judged where the config gives them.

    Args:
        leaf: The data set.
        folders: Names of its folders, in their order, as many as there are classes.
        report: Learns of names in another order.
    """
    names = leaf.classes or ()
    theirs, ours = ([_bare(name) for name in given] for given in (folders, names))
    if ours == theirs or len(ours) != len(theirs):
        return
    key = f"{leaf.key}.metainfo.classes"
    moved = [i for i, name in enumerate(theirs) if name in ours and ours[i] != name]
    if moved:
        i = moved[0]
        j = ours.index(theirs[i])
        what = f"has {names[j]!r} as class {j}, but folders are numbered in their order, and "
        what += f"{folders[i]!r} is class {i}"
        known = dict(zip(ours, names, strict=True))
        pairs = zip(theirs, folders, strict=True)
        order = tuple(known.get(name, folder) for name, folder in pairs)
        report.problem(key, what, f"write them in the order of the folders: {order}")
        return
    config = leaf.cfg.get("metainfo") or {}
    if config.get("classes") or leaf.cfg.get("classes"):
        odd = [i for i, name in enumerate(theirs) if ours[i] != name]
        taken = listed(f"{folders[i]} is {names[i]}" for i in odd)
        report.warn(key, f"not the names of the folders, which are taken in their order: {taken}")


def _bare(name: Any) -> str:
    """A name without case, blanks, hyphens and underscores."""
    return re.sub(r"[\s_-]", "", str(name)).casefold()
