"""Data sets of label maps: images, maps, and the numbers in a few of the maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import TRANSFORMS
from PIL import Image

from mmspike.engine.configs import as_list
from mmspike.engine.preflight.datasets import Leaf
from mmspike.engine.preflight.files import missing_files, suffixes
from mmspike.engine.preflight.pipelines import unknown_transform
from mmspike.engine.preflight.report import Report, listed, spread

_MAPS = 20  # looked into, spread over the data set
_MORE_MAPS = 200  # before it is said that a data set has only one class


def check_labels(leaf: Leaf, cfg: dict[str, Any], training: bool, report: Report) -> int:
    """Check images and label maps of a data set of mmseg's.

    Args:
        leaf: The data set.
        cfg: The whole config.
        training: Whether it is trained on.
        report: Learns of what is missing or does not fit the classes.

    Returns:
        How many images there are; 0 if they cannot be read.
    """
    dataset = leaf.dataset
    folder = dataset.data_prefix.get("img_path") or ""
    try:
        items = dataset.load_data_list()
    except (FileNotFoundError, NotADirectoryError, AssertionError) as error:
        where = f"{leaf.key}.data_prefix.img_path"
        if Path(folder).is_dir():
            where = f"{leaf.key}.ann_file"
        report.problem(where, f"cannot be read ({error})", f"mend {where}, or {leaf.key}.data_root")
        return 0
    indices = leaf.cfg.get("indices")
    if isinstance(indices, int):
        items = items[:indices] if indices >= 0 else items[indices:]
    if not items:
        found = [s for s in suffixes(folder) if s]
        report.problem(
            f"{leaf.key}.img_suffix",
            f"no file under {folder} ends in {dataset.img_suffix!r}; those there end in "
            f"{listed(found) or 'nothing'}",
            f"set img_suffix={found[0]!r}" if found else "mend data_prefix.img_path",
        )
        return 0
    named = {"img_path": ("data_prefix.img_path", "img_suffix")}
    if leaf.loader() is not None:
        named["seg_map_path"] = ("data_prefix.seg_map_path", "seg_map_suffix")
    for field, (prefix, suffix) in named.items():
        paths = [item[field] for item in items if item.get(field)]
        lost = missing_files(paths)
        if lost:
            given = getattr(dataset, suffix, "")
            what = "images" if field == "img_path" else "label maps"
            report.problem(
                f"{leaf.key}.{prefix}",
                f"{len(lost)} of {len(paths)} {what} are missing, the first is {lost[0]}",
                f"mend the folder, or {suffix} (now {given!r})",
            )
            return 0
    if leaf.loader() is not None and items[0].get("seg_map_path"):
        own = unknown_transform(leaf)
        if own is None:
            _check_numbers(leaf, items, cfg, training, report)
        else:
            why = f"since {own} comes after LoadAnnotations and may change the labels"
            report.skip(f"{leaf.key}.pipeline", f"the label maps, {why}")
    return len(items)


def _check_numbers(
    leaf: Leaf, items: list[dict[str, Any]], cfg: dict[str, Any], training: bool, report: Report
) -> None:
    """Compare the numbers in some label maps, as the pipeline loads them, with the classes."""
    load = TRANSFORMS.build(dict(leaf.loader() or {}))
    ignored, num_classes = _ignored(cfg), len(leaf.classes or ())
    key = f"{leaf.key}.data_prefix.seg_map_path"
    seen: set[int] = set()
    few = spread(items, _MAPS)
    for i, item in enumerate([*few, *spread(items, _MORE_MAPS)]):
        if i == len(few) and len(seen - {ignored}) > 1:
            return
        file = item["seg_map_path"]
        try:
            labels = load({**item, "seg_fields": []})["gt_seg_map"]
        except Exception as error:  # whatever a broken picture raises
            cure = "mend the file, or LoadAnnotations in the pipeline"
            report.problem(key, f"{file} cannot be loaded ({error})", cure)
            return
        if labels.ndim != 2:
            what = f"{file} has the shape {list(labels.shape)}, not [H, W]"
            report.problem(key, what, "write the number of its class for every pixel")
            return
        found = set(np.unique(labels).tolist())
        beyond = sorted(v for v in found - {ignored} if v >= num_classes)
        if beyond and num_classes:
            _report_beyond(leaf, file, beyond, ignored, report)
            return
        seen |= found
    if num_classes > 1 and training:
        _report_one_class(leaf, items[0]["seg_map_path"], seen, ignored, report)


def _ignored(cfg: dict[str, Any]) -> int:
    """The number of what has no class: the decode head's."""
    heads = as_list(cfg["model"].get("decode_head"))
    given = heads[0].get("ignore_index", 255) if heads else 255
    return 255 if given is None else given


def _report_beyond(leaf: Leaf, file: str, beyond: list[int], ignored: int, report: Report) -> None:
    count = len(leaf.classes or ())
    cure = f"write 0 to {count - 1}, and {ignored} for what has none"
    if leaf.dataset.reduce_zero_label:
        cure += " (numbers are those after reduce_zero_label=True, one less than in the file)"
    elif beyond == [count]:
        cure += ", or set reduce_zero_label=True if 0 stands for what has none"
    report.problem(
        f"{leaf.key}.metainfo.classes",
        f"{file} holds the numbers {listed(beyond)}, but there are {count} classes",
        cure,
    )


def _report_one_class(leaf: Leaf, file: str, seen: set[int], ignored: int, report: Report) -> None:
    """Say that there is nothing to tell apart: for sure if part of it is ignored, else maybe."""
    where = f"{leaf.key}.data_prefix.seg_map_path"
    kept = listed(sorted(seen - {ignored})) or "nothing"
    if ignored not in seen:
        report.warn(where, f"the label maps looked into hold {kept} alone")
        return
    raw = listed(np.unique(np.asarray(Image.open(file))).tolist(), 12)
    cure = (
        f"write the classes as 0 to {len(leaf.classes or ()) - 1}, and {ignored} for what has none"
    )
    if leaf.dataset.reduce_zero_label:
        cure += "; reduce_zero_label=True ignores 0"
    report.problem(
        where,
        f"nothing can be learnt from the label maps: of the classes they hold {kept}, everything "
        f"else is ignored ({ignored}); {file} has the numbers {raw}",
        cure,
    )
