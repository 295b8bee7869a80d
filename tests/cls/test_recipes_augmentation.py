"""Augmentation and test images of the recipes against what the published code calls of timm's."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS

from tests.cls.recipes import FROM_SCRATCH, INTEGERS, recipe

pytest.importorskip("mmpretrain", reason="needs mmpretrain: make install brings it")
pytest.importorskip("timm", reason="needs timm: make install brings it")
from PIL import Image
from timm.data import create_transform
from timm.data import random_erasing as timm_erasing
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEVELS = (6.3, 8.55, 9.0, 9.71)
BY_PLACE = ("Rotate", "Shear", "Translate")
"""Operations that move pixels: equal but for half a pixel, and for the kernel of interpolation."""


@pytest.fixture(scope="module")
def timms():
    """What the published code trains with, by the name of its parts."""
    pipeline = create_transform(
        input_size=224,
        is_training=True,
        color_jitter=None,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        mean=MEAN,
        std=STD,
    )
    return {type(part).__name__: part for part in pipeline.transforms}


@pytest.fixture(scope="module")
def ours():
    """Transforms of the recipe, by their names."""
    cfg = recipe(FROM_SCRATCH)
    return {t["type"]: TRANSFORMS.build(t) for t in cfg.train_dataloader.dataset.pipeline}


@pytest.fixture(scope="module")
def image():
    """A smooth picture, red first, with a spread of values as photographs have it."""
    noise = np.random.default_rng(0).normal(size=(128, 160, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 12)
    smooth = smooth / smooth.std((0, 1)) * 45 + np.array([123, 116, 103], np.float32)
    return np.clip(smooth, 0, 255).astype(np.uint8)


def test_order_of_the_operations(timms, ours):
    names = ["RandomResizedCrop", "RandomFlip", "RandAugment", "RandomErasing"]
    assert [name for name in ours if name in names] == names
    theirs = list(timms)
    assert theirs[0] == "RandomResizedCropAndInterpolation"
    assert theirs.index("RandomHorizontalFlip") < theirs.index("RandAugment")
    assert theirs[-1] == "RandomErasing"
    assert ours["RandomFlip"].prob == timms["RandomHorizontalFlip"].p


def test_crops_have_the_same_area_and_shape(timms, ours):
    crop, theirs = ours["RandomResizedCrop"], timms["RandomResizedCropAndInterpolation"]
    assert crop.scale == theirs.size == (224, 224)
    assert (crop.backend, crop.interpolation) == ("pillow", "bicubic")
    assert theirs.interpolation == transforms.InterpolationMode.BICUBIC
    picture, blank = np.zeros((300, 500, 3), np.uint8), Image.new("RGB", (500, 300))
    boxes = np.array([crop.rand_crop_params(picture) for _ in range(2000)])
    theirs = np.array([theirs.get_params(blank, theirs.scale, theirs.ratio) for _ in range(2000)])
    sizes = [boxes[:, 2:], theirs[:, 2:]]  # height and width
    for measure in (lambda s: s.prod(1) / 150_000, lambda s: np.log(s[:, 0] / s[:, 1])):
        quantiles = [np.quantile(measure(s), np.linspace(0.05, 0.95, 10)) for s in sizes]
        np.testing.assert_allclose(*quantiles, atol=0.05)


def test_two_operations_of_fifteen_each_half_of_the_time(timms, ours):
    mine, theirs = ours["RandAugment"], timms["RandAugment"]
    assert mine.num_policies == theirs.num_layers == 2
    assert theirs.choice_weights is None  # all alike, with replacement, as ours
    assert len(mine.transforms) == len(theirs.ops) == 15
    for operation, reference in zip(mine.transforms, theirs.ops, strict=True):
        assert operation.prob == reference.prob == 0.5
        if reference.level_fn is not None:
            assert operation.magnitude_level == reference.magnitude == 9
            assert operation.magnitude_std == reference.magnitude_std == 0.5
            assert operation.total_level == 10


def both(mine, theirs, image, level, negative, monkeypatch):
    """An operation of each at a level, as if that was drawn, and with a sign."""
    with monkeypatch.context() as patch:
        patch.setattr(mine, "prob", 1.0)
        patch.setattr(theirs, "prob", 1.0)
        patch.setattr(np.random, "normal", lambda mean, std: level)
        patch.setattr(random, "gauss", lambda mean, std: level)
        patch.setattr(np.random, "rand", lambda: 0.1 if negative else 0.9)
        patch.setattr(random, "random", lambda: 0.9 if negative else 0.1)
        result = mine({"img": image[..., ::-1].copy()})["img"][..., ::-1]
        return result.astype(int), np.asarray(theirs(Image.fromarray(image))).astype(int)


@pytest.mark.parametrize("negative", [False, True], ids=["positive", "negative"])
@pytest.mark.parametrize("number", range(15))
def test_operations_do_the_same_at_the_same_level(
    number, negative, timms, ours, image, monkeypatch
):
    mine, theirs = ours["RandAugment"].transforms[number], timms["RandAugment"].ops[number]
    name = type(mine).__name__
    moves = name in BY_PLACE  # with the sign that is the other direction in timm
    most = 0.0
    for level in LEVELS:
        result, _ = both(mine, theirs, image, level, negative, monkeypatch)
        _, reference = both(mine, theirs, image, level, negative != moves, monkeypatch)
        error, change = np.abs(result - reference), np.abs(reference - image).mean()
        if moves:
            assert error.mean() < 0.1 * change
            assert np.quantile(error, 0.97) <= 12  # borders apart
        else:
            assert error.max() <= (2 if name in ("ColorTransform", "Sharpness") else 0)
        most = max(most, change)
    assert most > (0 if name == "Sharpness" else 2)


@pytest.mark.parametrize("number", range(15))
def test_levels_end_at_10(number, timms, ours, image, monkeypatch):
    mine, theirs = ours["RandAugment"].transforms[number], timms["RandAugment"].ops[number]
    if theirs.name == "PosterizeIncreasing":  # keeps no bits at 10, which Pillow has come to refuse
        monkeypatch.setattr(theirs, "aug_fn", lambda picture, bits, **_: [bits])
    results = [both(mine, theirs, image, level, False, monkeypatch) for level in (10.0, 10.7)]
    for at, above in zip(*results, strict=True):
        np.testing.assert_array_equal(at, above)
    if theirs.name == "PosterizeIncreasing":
        assert not results[0][0].any()
        assert results[0][1] == [0]


def test_erased_rectangles(timms, ours, monkeypatch):
    mine, theirs = ours["RandomErasing"], timms["RandomErasing"]
    assert mine.erase_prob == theirs.probability == 0.25
    assert mine.min_area_ratio == theirs.min_area == 0.02
    assert mine.max_area_ratio == theirs.max_area == 1 / 3
    np.testing.assert_allclose(np.log(mine.aspect_range), theirs.log_aspect_ratio)
    assert (theirs.min_count, theirs.max_count) == (1, 1)
    drawn = []
    monkeypatch.setattr(
        timm_erasing, "_get_pixels", lambda *args, **_: drawn.append(args[2][1:]) or torch.zeros(1)
    )
    monkeypatch.setattr(theirs, "probability", 1.0)
    picture = torch.zeros(3, 224, 224)
    for _ in range(2000):
        theirs(picture)
    rectangles = np.array([mine.random_patch(224, 224) for _ in range(2000)])
    sizes = [rectangles[:, 2:], np.array(drawn)]
    for measure in (lambda s: s.prod(1) / 224**2, lambda s: np.log(s[:, 0] / s[:, 1])):
        quantiles = [np.quantile(measure(s), np.linspace(0.05, 0.95, 10)) for s in sizes]
        np.testing.assert_allclose(*quantiles, atol=0.12)
    ends = rectangles[:, :2] + rectangles[:, 2:]
    assert 215 < ends.max() <= 224
    assert rectangles[:, :2].min() < 9


def test_erased_pixels_are_normal_after_normalisation(ours, monkeypatch):
    """Ours are pixels, within 0 to 255; timm's are drawn behind the normalisation, without end."""
    mine = ours["RandomErasing"]
    monkeypatch.setattr(mine, "erase_prob", 1.0)
    erased = mine({"img": np.full((224, 224, 3), 1, np.uint8)})["img"][..., ::-1]
    values = erased[(erased != 1).any(-1)] / 255
    normalised = (values - np.array(MEAN)) / np.array(STD)
    assert len(normalised) > 900
    np.testing.assert_allclose(normalised.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(normalised.std(0), 1, atol=0.1)
    correlation = np.corrcoef(normalised[:-1, 0], normalised[1:, 0])[0, 1]
    assert abs(correlation) < 0.1  # each pixel its own


@pytest.mark.parametrize(("name", "size"), [(FROM_SCRATCH, 256), (INTEGERS, 232)])
@pytest.mark.parametrize("shape", [(300, 431), (517, 260), (224, 224)])
def test_images_for_tests_are_those_of_the_published_code(name, size, shape):
    """Its transforms are torchvision's."""
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    theirs = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
        ]
    )
    pipeline = [TRANSFORMS.build(t) for t in recipe(name).test_dataloader.dataset.pipeline[1:-1]]
    results = {"img": picture[..., ::-1].copy(), "img_shape": shape}
    for transform in pipeline:
        results = transform(results)
    expected = np.asarray(theirs(Image.fromarray(picture)))
    np.testing.assert_array_equal(results["img"][..., ::-1], expected)
