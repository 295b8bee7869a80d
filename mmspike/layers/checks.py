"""Checks, when a model is built, that its parts agree on strides and channels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn


def expect(name: str, given: Any, what: str, expected: Any) -> None:
    """Compare a setting with what another part of the model gives.

    Raises:
        ValueError: If they differ; it names both.
    """
    if isinstance(given, Sequence):
        given, expected = list(given), list(expected)
    if given != expected:
        raise ValueError(f"{name}={given} must be {what}: {expected}")


def is_doubling(strides: Sequence[int]) -> bool:
    """Whether each stride is twice the one before, as ordinary necks take it."""
    return all(b == 2 * a for a, b in pairwise(strides))


def expect_neck_fits(backbone: nn.Module, neck: Any) -> None:
    """Check that a neck takes the maps that a backbone gives, as far as both tell.

    Raises:
        ValueError: If strides or channels differ.
    """
    given, strides = getattr(neck, "in_strides", None), getattr(backbone, "out_strides", None)
    if given is not None and strides is not None:
        expect("neck.in_strides", given, "the backbone's strides", strides)
        what = "the backbone's channels"
        expect("neck.in_channels", neck.in_channels, what, backbone.out_channels)
