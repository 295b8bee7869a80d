"""Tiny data sets in the layouts that the shipped configs expect."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

import mmspike.registry  # noqa: F401  makes "mmseg::" known in configs
from tests.conftest import ROOT


def write_coco(root: Path, classes) -> None:
    """COCO's layout with an image and a box per class, for training and validation."""
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        names = [f"{i:012d}.jpg" for i in range(len(classes))]
        for name in names:
            (root / split / name).touch()  # never opened
        images = [
            {"id": i, "file_name": name, "height": 64, "width": 64} for i, name in enumerate(names)
        ]
        boxes = [
            {
                "id": i,
                "image_id": i,
                "category_id": i + 1,
                "bbox": [4, 4, 9, 9],
                "area": 81,
                "segmentation": [[4, 4, 13, 4, 13, 13]],
                "iscrowd": 0,
            }
            for i in range(len(names))
        ]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))


def write_maps(images: Path, maps: Path, names, suffixes, numbers) -> None:
    """Empty image files, and label maps that hold some numbers."""
    for name in names:
        for folder, suffix in ((images, suffixes[0]), (maps, suffixes[1])):
            (folder / f"{name}{suffix}").parent.mkdir(parents=True, exist_ok=True)
        (images / f"{name}{suffixes[0]}").touch()
        labels = np.resize(np.asarray(numbers, np.uint8), (16, 16))
        assert cv2.imwrite(str(maps / f"{name}{suffixes[1]}"), labels)


def write_segmentation(root: Path, name: str) -> None:
    """ADE20K's, Cityscapes' or Pascal VOC's layout, or that of our own segmentation configs."""
    suffixes = (".jpg", ".png")
    if name == "ade":
        for split in ("training", "validation"):
            folders = (root / kind / split for kind in ("images", "annotations"))
            write_maps(*folders, ["a", "b"], suffixes, range(151))
    elif name == "cityscapes":
        suffixes = ("_leftImg8bit.png", "_gtFine_labelTrainIds.png")
        for split in ("train", "val"):
            folders = (root / kind / split for kind in ("leftImg8bit", "gtFine"))
            write_maps(*folders, ["aachen/a", "ulm/b"], suffixes, [*range(19), 255])
    elif name == "voc":
        folders = (root / "JPEGImages", root / "SegmentationClass")
        write_maps(*folders, ["a", "b"], suffixes, [*range(21), 255])
        lists = root / "ImageSets/Segmentation"
        lists.mkdir(parents=True)
        for split in ("train", "val"):
            (lists / f"{split}.txt").write_text("a\nb\n")
    else:
        for split in ("train", "val"):
            numbers = {"nuclei": [0, 1], "shapes": [0, 1, 2, 3]}[name]
            suffix = {"nuclei": ".jpg", "shapes": ".png"}[name]
            folders = (root / split, root / "semseg" / split)
            write_maps(*folders, ["a", "b"], (suffix, ".png"), numbers)


def write_folders(root: Path, classes: int) -> Path:
    """A folder with an image for each class, as ImageNet has them."""
    for split in ("train", "val"):
        for i in range(classes):
            folder = root / split / f"n{i:08d}"
            folder.mkdir(parents=True)
            (folder / "a.JPEG").touch()
    return root


def read_config(name: str, root: Path | None = None) -> Config:
    """A shipped config, without pretrained weights, on the data under ``root``."""
    cfg = Config.fromfile(ROOT / "configs" / name)
    cfg.model.backbone.init_cfg = cfg.model.init_cfg = None
    for part in ("train", "val", "test") if root else ():
        dataset = cfg[f"{part}_dataloader"].dataset
        evaluator = cfg.get(f"{part}_evaluator", {})
        if "ann_file" in evaluator:
            evaluator.ann_file = evaluator.ann_file.replace(dataset.data_root, f"{root}/")
        dataset.data_root = f"{root}/"
    return cfg
