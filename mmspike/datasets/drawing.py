"""Draws coloured circles, squares and triangles with occlusion, noise and clutter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

CLASSES = ("circle", "square", "triangle")
VERSION = 3  # of the drawing: another one makes other images from the same settings
_OVERSAMPLE = 4  # shapes are drawn this much larger and averaged, for smooth edges
_MIN_VISIBLE = 0.5  # share of every shape that stays visible
_MIN_AREA = 24  # pixels of the smallest visible part


@dataclass(frozen=True)
class ShapesSettings:
    """What a shapes data set depends on.

    Attributes:
        num_train: Images to train on.
        num_val: Images to validate on.
        size: Height and width in pixels.
        seed: Seed of every draw.
        max_shapes: Most shapes in an image; every image has at least one.
        noise: Standard deviation of the noise in grey levels.
        max_tilt: Largest turn of a square or triangle from upright, in degrees.
    """

    num_train: int = 1000
    num_val: int = 200
    size: int = 128
    seed: int = 0
    max_shapes: int = 3
    noise: float = 10.0
    max_tilt: float = 5.0

    radii: ClassVar[tuple[float, float]] = (0.13, 0.28)  # of shapes, in sizes of the image

    def __post_init__(self) -> None:
        for name, least in {"num_train": 1, "num_val": 1, "size": 32, "max_shapes": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class OneShapeSettings(ShapesSettings):
    """What a shapes data set to classify depends on: an image has one shape, which is larger.

    Attributes:
        num_train: Images to train on.
        num_val: Images to validate on.
        size: Height and width in pixels.
        max_shapes: 1.
    """

    num_train: int = 3000
    num_val: int = 300
    size: int = 64
    max_shapes: int = 1

    radii: ClassVar[tuple[float, float]] = (0.25, 0.4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_shapes != 1:
            raise ValueError(f"an image to classify has 1 shape, got max_shapes={self.max_shapes}")


def draw_scene(
    rng: np.random.Generator, settings: ShapesSettings
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw one image.

    Args:
        rng: Source of every draw.
        settings: Size, number of shapes and noise.

    Returns:
        The image, ``[H, W, 3]`` uint8 in BGR, and the shapes: class index and mask of what is
        visible, ``[H, W]`` bool.
    """
    size = settings.size
    image = _background(rng, size)
    shapes: list[tuple[int, np.ndarray, int]] = []  # class, visible mask, area before occlusion
    wanted = int(rng.integers(1, settings.max_shapes + 1))
    for _ in range(4 * wanted):  # a draw that hides another shape is thrown away
        label = int(rng.integers(len(CLASSES)))
        alpha = _shape_alpha(rng, label, settings)
        mask = alpha >= 0.5
        visible = [m & ~mask for _, m, _ in shapes]
        hides = any(
            v.sum() < max(_MIN_VISIBLE * area, _MIN_AREA)
            for v, (_, _, area) in zip(visible, shapes, strict=True)
        )
        if hides or mask.sum() < _MIN_AREA:
            continue
        image = _paint(image, alpha, _contrasting_colour(rng, image[mask].mean(0)))
        shapes = [(c, v, area) for (c, _, area), v in zip(shapes, visible, strict=True)]
        shapes.append((label, mask, int(mask.sum())))
        if len(shapes) == wanted:
            break
    image = image + rng.normal(0, settings.noise, image.shape)
    return image.clip(0, 255).round().astype(np.uint8), [(c, m) for c, m, _ in shapes]


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A patchwork of greys with coloured lines and arcs drawn over it, ``[H, W, 3]`` float."""
    coarse = rng.uniform(40, 215) + rng.normal(0, 25, (4, 4, 1)) + rng.normal(0, 6, (4, 4, 3))
    image = cv2.resize(coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(2, 6))):
        colour = rng.uniform(0, 255, 3).tolist()
        start, end = rng.integers(0, size, (2, 2)).tolist()
        if rng.random() < 0.5:
            cv2.line(image, start, end, colour, int(rng.integers(1, 3)), cv2.LINE_AA)
        else:
            axes = rng.integers(size // 16, size // 3, 2).tolist()
            turn, sweep = rng.uniform(0, 360), rng.uniform(40, 160)
            cv2.ellipse(image, start, axes, turn, 0, sweep, colour, 1, cv2.LINE_AA)
    return image


def _shape_alpha(rng: np.random.Generator, label: int, settings: ShapesSettings) -> np.ndarray:
    """Coverage of each pixel by one random shape, ``[H, W]`` float from 0 to 1."""
    size, max_tilt = settings.size, settings.max_tilt
    radius = rng.uniform(*settings.radii) * size
    centre = rng.uniform(0.5 * radius, size - 0.5 * radius, 2)
    tilt = np.radians(rng.uniform(-max_tilt, max_tilt))
    corners = {"circle": 64, "square": 4, "triangle": 3}[CLASSES[label]]
    if corners < 64:
        radius *= 1.15  # a polygon inside the circle looks smaller than it
    # the lowest side is level where the tilt is 0
    angles = np.pi / 2 + np.pi / corners + tilt + 2 * np.pi * np.arange(corners) / corners
    points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    big = np.zeros((size * _OVERSAMPLE, size * _OVERSAMPLE), np.uint8)
    cv2.fillPoly(big, [np.round(points * _OVERSAMPLE).astype(np.int32)], 255)
    return cv2.resize(big, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _contrasting_colour(rng: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    """A colour, not a grey, that differs from what is behind it by 100 levels in one channel."""
    while True:
        colour = rng.uniform(0, 255, 3)
        if np.ptp(colour) >= 100 and np.abs(colour - behind).max() >= 100:
            return colour


def _paint(image: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return image + alpha[..., None] * (colour - image)
