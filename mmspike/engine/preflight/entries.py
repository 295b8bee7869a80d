"""The entries of an annotation file in COCO's format: whether each has what its readers take."""

from __future__ import annotations

import math
from typing import Any

from mmspike.engine.preflight.report import Report

_KEYS = {
    "categories": ("id", "name"),
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
}


def check_entries(file: str, key: str, coco: dict[str, Any], report: Report) -> bool:
    """Look for entries that the readers of the hosts end on without a name.

    Args:
        file: The annotation file.
        key: What names it in the config.
        coco: Its content, with images and categories.
        report: Learns of the first such entry.

    Returns:
        Whether all entries can be read.
    """
    for name, keys in _KEYS.items():
        entries = coco.get(name, [])
        if not isinstance(entries, list):
            report.problem(key, f"{name} of {file} is no list", "write a list of entries")
            return False
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                what = f"{name}[{i}] of {file} is {entry!r}"
                report.problem(key, what, f"every entry needs {', '.join(keys)}")
                return False
            lacking = [k for k in keys if k not in entry]
            if lacking and not entry.get("ignore"):
                what = f"{file} has no {lacking[0]} in {name}[{i}]"
                report.problem(key, what, f"every entry needs {', '.join(keys)}")
                return False
    wrong = _wrong_size(coco) or _wrong_box(coco)
    if wrong:
        where, expected = wrong
        report.problem(key, f"{file} has {where}", f"expected {expected}")
    return not wrong


def _wrong_size(coco: dict[str, Any]) -> tuple[str, str] | None:
    """The first image whose size is not told in numbers, and what is expected."""
    for image in coco["images"]:
        for name in ("height", "width"):
            if not _is_number(image.get(name)):
                return f"{name} {image.get(name)!r} in image {image.get('id')!r}", "a number"
    return None


def _wrong_box(coco: dict[str, Any]) -> tuple[str, str] | None:
    """The first annotation whose box or area is not one, and what is expected."""
    for ann in coco.get("annotations", []):
        if ann.get("ignore"):  # left out by mmdet before it is looked at
            continue
        box, area = ann["bbox"], ann["area"]
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            expected = "four numbers, [x, y, width, height] in pixels"
            return f"bbox {box!r} in annotation {ann['id']!r}", expected
        if not _is_number(area):
            return f"area {area!r} in annotation {ann['id']!r}", "a number of pixels"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
