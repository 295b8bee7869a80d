"""Coloured circles, squares and triangles with occlusion, noise and clutter, as data sets.

Instances are in COCO format, and a label map lies beside every image; or an image has one shape,
and lies in the folder of its class.

Every image is drawn from its own seed, so that a data set depends on nothing but its settings.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from mmspike.datasets.drawing import (
    CLASSES,
    VERSION,
    OneShapeSettings,
    ShapesSettings,
    draw_scene,
)

__all__ = [
    "CLASSES",
    "OneShapeSettings",
    "ShapesSettings",
    "draw_scene",
    "write_class_folders",
    "write_shapes",
]

_NOTE = "settings.json"  # of a data set to classify


def write_shapes(
    root: str | Path,
    settings: ShapesSettings,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> bool:
    """Write a data set, or leave it if it is there already.

    It appears as a whole: images in ``{train,val}/*.png``, instances in
    ``annotations/{train,val}.json``, and label maps in ``semseg/{train,val}/*.png``: 0 is the
    background, 1 to 3 are the classes.

    Args:
        root: Folder to write.
        settings: What to draw.
        overwrite: Whether to replace a shapes data set with other settings.
        progress: Called with a line now and then.

    Returns:
        Whether anything was written.

    Raises:
        FileExistsError: If ``root`` holds something else, or shapes with other settings and
            ``overwrite`` is not set.
    """

    def write(folder: Path) -> None:
        (folder / "annotations").mkdir(parents=True)
        for index, (split, count) in enumerate(_splits(settings)):
            (folder / "semseg" / split).mkdir(parents=True)
            coco = _write_split(folder, split, settings, index, count, progress)
            (folder / "annotations" / f"{split}.json").write_text(json.dumps(coco))

    return _write_whole(Path(root), _identity(settings), _settings_of(Path(root)), overwrite, write)


def write_class_folders(
    root: str | Path,
    settings: OneShapeSettings,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> bool:
    """Write a data set to classify, or leave it if it is there already.

    It appears as a whole: images in ``{train,val}/<class>/*.png``, with one shape each.

    Args:
        root: Folder to write.
        settings: What to draw.
        overwrite: Whether to replace a shapes data set with other settings.
        progress: Called with a line now and then.

    Returns:
        Whether anything was written.

    Raises:
        FileExistsError: As :func:`write_shapes`.
    """
    identity = {**_identity(settings), "layout": "folders"}

    def write(folder: Path) -> None:
        for index, (split, count) in enumerate(_splits(settings)):
            for name in CLASSES:
                (folder / split / name).mkdir(parents=True)
            for i in range(count):
                shapes: list[tuple[int, np.ndarray]] = []
                rng = np.random.default_rng([settings.seed, index, i])
                while not shapes:  # a draw may be too small to be seen
                    image, shapes = draw_scene(rng, settings)
                _write_png(folder / split / CLASSES[shapes[0][0]] / f"{i:06d}.png", image)
                _tell(progress, split, i, count)
        (folder / _NOTE).write_text(json.dumps(identity))

    return _write_whole(Path(root), identity, _settings_of(Path(root)), overwrite, write)


def _splits(settings: ShapesSettings) -> list[tuple[str, int]]:
    return [("train", settings.num_train), ("val", settings.num_val)]


def _tell(progress: Callable[[str], None], split: str, i: int, count: int) -> None:
    if (i + 1) % 500 == 0 or i + 1 == count:
        progress(f"{split}: {i + 1} of {count} images")


def _write_whole(
    root: Path,
    identity: dict[str, Any],
    found: dict[str, Any] | None,
    overwrite: bool,
    write: Callable[[Path], None],
) -> bool:
    """Let a data set appear as a whole, unless it is there; see :func:`write_shapes`."""
    if root.exists():
        if found == identity:
            return False
        if found is None:
            raise FileExistsError(
                f"{root} exists and is not a shapes data set; choose another folder"
            )
        if not overwrite:
            raise FileExistsError(
                f"{root} is a shapes data set with other settings; choose another folder, or "
                "overwrite it"
            )
    partial = root.with_name(f"{root.name}.partial-{os.getpid()}")
    try:
        write(partial)
        if root.exists():
            shutil.rmtree(root)
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _write_split(
    root: Path,
    split: str,
    settings: ShapesSettings,
    index: int,
    count: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    (root / split).mkdir()
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for i in range(count):
        image, shapes = draw_scene(np.random.default_rng([settings.seed, index, i]), settings)
        name = f"{i:06d}.png"
        labels = np.zeros(image.shape[:2], np.uint8)
        for label, mask in shapes:
            labels[mask] = label + 1
        _write_png(root / split / name, image)
        _write_png(root / "semseg" / split / name, labels)
        size = {"height": settings.size, "width": settings.size}
        images.append({"id": i + 1, "file_name": name, **size})
        for label, mask in shapes:
            rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": label + 1,
                    "bbox": mask_utils.toBbox(rle).tolist(),
                    "area": int(mask_utils.area(rle)),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "iscrowd": 0,
                }
            )
        _tell(progress, split, i, count)
    return {
        "info": {"description": "generated shapes", "settings": _identity(settings)},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
    }


def _write_png(file: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(file), pixels):
        raise OSError(f"could not write {file}")


def _settings_of(root: Path) -> dict[str, Any] | None:
    try:
        if (root / _NOTE).is_file():
            return json.loads((root / _NOTE).read_text())
        return json.loads((root / "annotations" / "val.json").read_text())["info"]["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _identity(settings: ShapesSettings) -> dict[str, Any]:
    return {**asdict(settings), "version": VERSION}
