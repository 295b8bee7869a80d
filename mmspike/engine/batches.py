"""What a batch of mmdet's or mmseg's data loader holds, whatever its nesting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmspike.checkpoints.loading import is_finite
from mmspike.checkpoints.sources import shorten


def image_files(data_batch: Any) -> list[str]:
    """The image files of a batch, as far as its samples tell."""
    return list(_files(data_batch).values())


def bad_inputs(data_batch: Any) -> str:
    """Say what in a batch is not finite; nothing, if all is."""
    bad = [
        f"{what} of {file or 'an image'} ({_count(x)})"
        for file, what, x in images_and_numbers(data_batch)
        if not is_finite(x)
    ]
    return f"not all inputs are finite: {shorten(bad, 5)}" if bad else ""


def images_and_numbers(data_batch: Any) -> Iterator[tuple[str | None, str, Tensor]]:
    """Floating-point tensors of a batch on the CPU: images, boxes, and whatever else there is.

    Images of bytes, which most are, cost nothing here.

    Args:
        data_batch: ``inputs`` and ``data_samples``, as lists or batched, in branches or not.

    Yields:
        The image's file if it is known, what it is (``inputs``, ``gt_instances.bboxes`` ...), and
        the numbers.
    """
    files = _files(data_batch)
    for path, tensor in _numbers(data_batch, ()):
        place = path[: next((i + 1 for i, k in enumerate(path) if isinstance(k, int)), 0)]
        file = files.get(tuple(k for k in place if k not in ("inputs", "data_samples")))
        names = [k for k in path if isinstance(k, str) and k != "data_samples"]
        yield file, ".".join(names) or "inputs", tensor


def _count(x: Tensor) -> str:
    nan, inf = int(x.isnan().sum()), int(x.float().isinf().sum())
    counts = [f"{n} {kind}" for n, kind in ((nan, "NaN"), (inf, "infinite")) if n]
    return f"{' and '.join(counts)} of {x.numel()} numbers"


def _files(value: Any, place: tuple = ()) -> dict[tuple, str]:
    """Image files by the place of their samples, without the keys that tell inputs and samples."""
    if isinstance(value, BaseDataElement):
        file = value.metainfo.get("img_path")
        return {} if file is None else {place: str(file)}
    files: dict[tuple, str] = {}
    if isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            here = place if key in ("inputs", "data_samples") else (*place, key)
            files |= _files(part, here)
    return files


def _numbers(value: Any, path: tuple) -> Iterator[tuple[tuple, Tensor]]:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.device.type == "cpu":
            batched = path and path[-1] == "inputs" and value.dim() == 4
            parts = enumerate(value) if batched else [(None, value)]
            for i, part in parts:
                yield (path if i is None else (*path, i)), part
    elif isinstance(value, BaseDataElement | dict):
        for key, part in value.items():
            yield from _numbers(part, (*path, key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _numbers(part, (*path, i))
    else:
        for attribute in ("tensor", "masks"):  # mmdet's boxes; its masks, polygons among them
            if hasattr(value, attribute):
                yield from _numbers(getattr(value, attribute), path)
