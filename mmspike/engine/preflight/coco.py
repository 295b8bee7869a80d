"""Data sets in COCO's format: classes, images, boxes and masks."""

from __future__ import annotations

import difflib
import gc
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmspike.engine.preflight.datasets import Leaf
from mmspike.engine.preflight.entries import check_entries
from mmspike.engine.preflight.files import missing_files
from mmspike.engine.preflight.report import Report, listed


def read_coco(file: str, key: str, report: Report) -> dict[str, Any] | None:
    """Read an annotation file.

    Args:
        file: Its path.
        key: What names it in the config.
        report: Learns why it cannot be used.

    Returns:
        Its content, or ``None`` if there is no using it.
    """
    if not Path(file).is_file():
        report.problem(key, f"there is no file {file}", _cure_of_path(key))
        return None
    collecting = gc.isenabled()
    gc.disable()  # millions of small objects, none of them garbage
    try:
        with open(file, encoding="utf-8") as stream:
            coco = json.load(stream)
    except ValueError as error:
        report.problem(key, f"{file} is no JSON file ({error})", "give one in COCO's format")
        return None
    finally:
        if collecting:
            gc.enable()
    lists = ("images", "categories")
    absent = [k for k in lists if not isinstance(coco, dict) or not coco.get(k)]
    if absent:
        report.problem(key, f"{file} has no {' and no '.join(absent)}", "COCO's format has both")
        return None
    return coco if check_entries(file, key, coco, report) else None


def _cure_of_path(key: str) -> str:
    """What to mend, in full keys: data sets have a root that is put before the path."""
    if "_dataloader." not in key:
        return f"mend {key}"
    return f"mend {key}, or {key.rpartition('.')[0]}.data_root"


def labels_of(coco: dict[str, Any], classes: Sequence[str]) -> list[str]:
    """The classes as mmdet numbers them: in the order of the file, those it does not have left out.

    Returns:
        The name of label 0, 1, ...
    """
    return [c["name"] for c in coco["categories"] if c["name"] in classes]


def check_classes(key: str, file: str, coco: dict[str, Any], leaf: Leaf, report: Report) -> None:
    """Compare a data set's classes with an annotation file's categories.

    Args:
        key: What names the file in the config.
        file: The annotation file.
        coco: Its content.
        leaf: The data set.
        report: Learns of classes that the file does not have, or has twice.
    """
    classes, names = leaf.classes or (), [c["name"] for c in coco["categories"]]
    lost = [c for c in classes if c not in names]
    if lost:
        near = {c: difflib.get_close_matches(str(c), map(str, names), 1) for c in lost}
        hints = [f"{c!r} (is it {n[0]!r}?)" if n else repr(c) for c, n in near.items()]
        report.problem(
            f"{leaf.key}.metainfo.classes",
            f"{listed(hints)} is not in {file}, whose categories are {listed(names, 12)}",
            "write the names as they stand there",
        )
        return
    twice = [n for n, count in Counter(names).items() if count > 1 and n in classes]
    if twice:
        what = f"{file} has the category {listed(twice)} more than once"
        report.problem(key, what, "give each class one id")
    elif labels_of(coco, classes) != list(classes):
        report.warn(
            f"{leaf.key}.metainfo.classes",
            f"mmdet numbers classes in the order of {file}, {listed(names, 12)}: names are drawn "
            "wrongly; give the classes in that order",
        )


@dataclass
class _Boxes:
    """What mmdet makes of the annotations of a data set."""

    good: int = 0
    degenerate: int = 0
    first_degenerate: Any = None
    other_class: int = 0
    without_mask: int = 0
    first_without_mask: Any = None


def check_coco(leaf: Leaf, coco: dict[str, Any], training: bool, report: Report) -> set[Any]:
    """Check images, boxes and masks of a data set.

    Args:
        leaf: The data set.
        coco: The content of its annotation file.
        training: Whether it is trained on, and not evaluated.
        report: Learns of what is missing.

    Returns:
        The ids of the images that the data set gives.
    """
    wanted = {c["id"] for c in coco["categories"] if c["name"] in (leaf.classes or ())}
    images = _used_images(leaf, coco, wanted)
    ids = {image["id"] for image in images}
    file, prefix = leaf.dataset.ann_file, leaf.dataset.data_prefix.get("img", "")
    lost = missing_files([str(Path(prefix, image["file_name"])) for image in images])
    if lost:
        report.problem(
            f"{leaf.key}.data_prefix.img",
            f"{len(lost)} of {len(images)} images of {file} are missing, the first is {lost[0]}",
            "mend the folder, or the file_name of the images",
        )
    loader = leaf.loader()
    if loader is None or not wanted:  # without annotations, or their classes are not there
        return ids
    boxes = _sort_boxes(coco, {image["id"]: image for image in images}, wanted)
    if training and boxes.good == 0:
        _report_no_boxes(leaf, boxes, len(images), report)
    elif boxes.degenerate:
        what = f"{boxes.degenerate} boxes are left out, being less than a pixel or off the image"
        report.warn(file, f"{what}; the first is that of {boxes.first_degenerate}")
    if loader.get("with_mask") and boxes.without_mask:
        report.problem(
            f"{leaf.key}.ann_file",
            f"{boxes.without_mask} of {boxes.good} boxes in {file} have no segmentation, but the "
            f"pipeline loads masks (LoadAnnotations with_mask=True); the first is that of "
            f"{boxes.first_without_mask}",
            "give them masks, or detect boxes alone: model.roi_head.mask_head=None, "
            'with_mask=False in both pipelines, metric="bbox" in the evaluators',
        )
    return ids


def _used_images(leaf: Leaf, coco: dict[str, Any], wanted: set[Any]) -> list[dict[str, Any]]:
    """The images that are left after the data set's ``filter_cfg`` and ``indices``."""
    images = coco["images"]
    rule = {} if leaf.dataset.test_mode else leaf.dataset.filter_cfg or {}
    if rule.get("filter_empty_gt"):
        kept = {a["image_id"] for a in coco.get("annotations", []) if a["category_id"] in wanted}
        images = [image for image in images if image["id"] in kept]
    least = rule.get("min_size", 0)
    images = [image for image in images if min(image["width"], image["height"]) >= least]
    indices = leaf.cfg.get("indices")
    if isinstance(indices, int):
        return images[:indices] if indices >= 0 else images[indices:]
    return images if indices is None else [images[i] for i in indices if i < len(images)]


def _sort_boxes(coco: dict[str, Any], images: dict[Any, dict], wanted: set[Any]) -> _Boxes:
    """Count boxes as mmdet's ``CocoDataset.parse_data_info`` keeps or drops them."""
    boxes = _Boxes()
    for ann in coco.get("annotations", []):
        image = images.get(ann["image_id"])
        if image is None or ann.get("ignore"):
            continue
        if ann["category_id"] not in wanted:
            boxes.other_class += 1
            continue
        x, y, w, h = ann["bbox"]
        inside = min(x + w, image["width"]) > max(x, 0) and min(y + h, image["height"]) > max(y, 0)
        if not inside or ann["area"] <= 0 or w < 1 or h < 1:
            boxes.degenerate += 1
            boxes.first_degenerate = boxes.first_degenerate or _describe(ann, image)
            continue
        boxes.good += 1
        if not ann.get("segmentation"):
            boxes.without_mask += 1
            boxes.first_without_mask = boxes.first_without_mask or _describe(ann, image)
    return boxes


def _describe(ann: dict[str, Any], image: dict[str, Any]) -> str:
    return (
        f"annotation {ann['id']} in {image['file_name']} ({image['width']} x {image['height']}), "
        f"bbox {ann['bbox']}, area {ann['area']}"
    )


def _report_no_boxes(leaf: Leaf, boxes: _Boxes, images: int, report: Report) -> None:
    file = leaf.dataset.ann_file
    if boxes.degenerate:
        what = (
            f"all {boxes.degenerate} boxes of {file} are degenerate (less than a pixel, without "
            f"area, or off the image): the first is that of {boxes.first_degenerate}"
        )
        cure = "COCO's boxes are [x, y, width, height] in pixels, with their area"
    elif boxes.other_class:
        what = f"no box of {file} is of its {len(leaf.classes or ())} classes"
        cure = "mend category_id there, or metainfo.classes"
    else:
        what, cure = f"{file} has no boxes for its {images} images", "give it annotations"
    report.problem(f"{leaf.key}.ann_file", what, cure)
