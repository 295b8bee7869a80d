from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmspike.datasets.shapes import (
    CLASSES,
    OneShapeSettings,
    ShapesSettings,
    draw_scene,
    write_class_folders,
    write_shapes,
)


def test_valid_for_pycocotools(shapes_root):
    for split, count in (("train", 8), ("val", 4)):
        coco = COCO(shapes_root / "annotations" / f"{split}.json")
        assert len(coco.imgs) == count
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        for image in coco.imgs.values():
            pixels = cv2.imread(str(shapes_root / split / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3) == (128, 128, 3)
            annotations = coco.imgToAnns[image["id"]]
            assert 1 <= len(annotations) <= 3
            masks = [coco.annToMask(a) for a in annotations]
            assert np.sum(masks, axis=0).max() == 1  # only what is visible is labelled
            for a, mask in zip(annotations, masks, strict=True):
                ys, xs = np.nonzero(mask)
                x, y, w, h = a["bbox"]
                assert (x, y) == (xs.min(), ys.min())
                assert (x + w, y + h) == (xs.max() + 1, ys.max() + 1)
                assert a["area"] == mask.sum() >= 24


def test_deterministic_by_seed(tmp_path):
    settings = ShapesSettings(num_train=2, num_val=1, size=64, seed=3)
    write_shapes(tmp_path / "a", settings)
    write_shapes(tmp_path / "b", settings)
    write_shapes(tmp_path / "c", ShapesSettings(num_train=2, num_val=1, size=64, seed=4))

    def read(name):
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        return {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files}

    assert read("a") == read("b")
    assert read("a")["train/000000.png"] != read("c")["train/000000.png"]
    assert read("a")["train/000000.png"] != read("a")["val/000000.png"]


def test_classes_occlusion_and_noise_occur():
    settings = ShapesSettings()
    scenes = [draw_scene(np.random.default_rng([0, i]), settings) for i in range(60)]
    labels = [label for _, shapes in scenes for label, _ in shapes]
    assert min(np.bincount(labels, minlength=3)) >= 10
    # an unoccluded square, circle or triangle fills a known share of its convex hull: all of it
    hulls = 0
    for _, shapes in scenes:
        for _, mask in shapes:
            points = cv2.findNonZero(mask.astype(np.uint8))
            hulls += mask.sum() < 0.85 * cv2.contourArea(cv2.convexHull(points))
    assert hulls >= 5


def test_is_left_alone_or_replaced_as_a_whole(tmp_path):
    root = tmp_path / "shapes"
    settings = ShapesSettings(num_train=1, num_val=1, size=32)
    assert write_shapes(root, settings)
    assert not write_shapes(root, settings)
    other = ShapesSettings(num_train=2, num_val=1, size=32)
    with pytest.raises(FileExistsError, match="is a shapes data set with other settings"):
        write_shapes(root, other)
    assert write_shapes(root, other, overwrite=True)
    images = json.loads((root / "annotations/train.json").read_text())["images"]
    assert len(images) == len(list((root / "train").iterdir())) == 2
    assert list(tmp_path.iterdir()) == [root]


def test_another_folder_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("precious")
    settings = ShapesSettings(num_train=1, num_val=1, size=32)
    with pytest.raises(FileExistsError, match="is not a shapes data set"):
        write_shapes(tmp_path / "mine", settings, overwrite=True)
    assert (tmp_path / "mine/file").read_text() == "precious"


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)
    with pytest.raises(OSError, match="could not write"):
        write_shapes(tmp_path / "shapes", ShapesSettings(num_train=1, num_val=1, size=32))
    assert list(tmp_path.iterdir()) == []


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="size must be at least 32, got 8"):
        ShapesSettings(size=8)


def test_images_to_classify_lie_in_the_folders_of_their_classes(tmp_path):
    settings = OneShapeSettings(num_train=30, num_val=6, size=48, seed=2)
    assert write_class_folders(tmp_path / "a", settings)
    assert not write_class_folders(tmp_path / "a", settings)
    for split, count in (("train", 30), ("val", 6)):
        files = sorted((tmp_path / "a" / split).glob("*/*.png"))
        assert len(files) == count
        assert {folder.name for folder in (tmp_path / "a" / split).iterdir()} == set(CLASSES)
        for file in files[:8]:
            rng = np.random.default_rng([2, ("train", "val").index(split), int(file.stem)])
            image, [(label, mask)] = draw_scene(rng, settings)
            assert CLASSES[label] == file.parent.name
            assert np.array_equal(cv2.imread(str(file)), image)
            assert mask.mean() > 0.04  # larger than among others
    with pytest.raises(FileExistsError, match="with other settings"):
        write_shapes(tmp_path / "a", ShapesSettings(num_train=1, num_val=1))
    with pytest.raises(ValueError, match="has 1 shape, got max_shapes=2"):
        OneShapeSettings(max_shapes=2)
