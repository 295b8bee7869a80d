"""Checks of arguments that come from config files, where a typing error is any value at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer


def refuse_unless(ok: Any, owner: str, name: str, expected: str, value: Any) -> None:
    """Name an argument that cannot be right.

    Raises:
        ValueError: Unless ``ok``; it names argument, expectation and value.
    """
    if not ok:
        raise ValueError(f"{owner}: {name} must be {expected}, got {value!r}")


def is_count(value: Any, least: int = 1) -> bool:
    """Whether a value is a whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def are_counts(values: Any, least: int = 1) -> bool:
    """Whether a value is a sequence of such numbers, and not empty."""
    several = isinstance(values, Sequence) and not isinstance(values, str)
    return several and len(values) > 0 and all(is_count(v, least) for v in values)


def check_norm(owner: str, norm_cfg: Any, channels: int = 32, running: bool = False) -> None:
    """Check that a norm can be built from a config.

    Args:
        owner: Name of the class whose argument it is.
        norm_cfg: Config of a norm; ``None`` is the default.
        channels: How many it is over.
        running: Whether it must keep running statistics, as batch norms do.

    Raises:
        ValueError: If not.
    """
    expected = "a config such as dict(type='BN')"
    if running:
        expected += ", of a norm with running statistics (BN, SyncBN)"
    if norm_cfg is None:
        return
    ok = isinstance(norm_cfg, dict) and norm_cfg.get("type")
    refuse_unless(ok, owner, "norm_cfg", expected, norm_cfg)
    try:
        norm = build_norm_layer(dict(norm_cfg), channels)[1]
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        expected += f" that can be built over {channels} channels ({error})"
        raise ValueError(f"{owner}: norm_cfg must be {expected}, got {norm_cfg!r}") from error
    kept = getattr(norm, "running_mean", None) is not None
    refuse_unless(kept or not running, owner, "norm_cfg", expected, norm_cfg)
