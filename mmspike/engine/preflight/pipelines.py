"""Transforms of a pipeline that are not the hosts' and may change what was loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.registry import TRANSFORMS

from mmspike.engine.configs import find_class, type_name
from mmspike.engine.preflight.datasets import Leaf

_KNOWN = ("mmcv", "mmengine", "mmseg", "mmspike")  # none of theirs gives labels other numbers


def unknown_transform(leaf: Leaf) -> str | None:
    """The first transform after ``LoadAnnotations`` of which it is not known what it does.

    Args:
        leaf: The data set; pipelines of its wrappers count too.

    Returns:
        Its name; ``None`` if there is none.
    """
    pipeline = [*leaf.cfg.get("pipeline", []), *leaf.after]
    start = next(i for i, t in enumerate(pipeline) if type_name(t) == "LoadAnnotations")
    for transform in _flat(pipeline[start:]):
        if isinstance(transform, dict):
            made_by = find_class(TRANSFORMS, transform)
            name = type_name(transform)
        else:  # an object or a function instead of a config
            made_by = transform
            name = getattr(transform, "__name__", type(transform).__name__)
        if (getattr(made_by, "__module__", None) or "").split(".")[0] not in _KNOWN:
            return name
    return None


def _flat(transforms: Any) -> Iterator[Any]:
    """Transforms and those inside them, as in ``RandomChoice``."""
    for transform in transforms:
        if isinstance(transform, list | tuple):
            yield from _flat(transform)
            continue
        yield transform
        if isinstance(transform, dict) and isinstance(transform.get("transforms"), list | tuple):
            yield from _flat(transform["transforms"])
