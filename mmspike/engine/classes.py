"""What the classes of a model are called, when it is drawn what it predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from torch import nn

from mmspike.engine.configs import metainfo_of


def find_dataset_meta(cfg: Config, model: nn.Module, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Names and colours of a model's classes.

    Those of the checkpoint are taken, else those of the data that the config tests on, if they are
    as many as the model's; else the classes' numbers.

    Args:
        cfg: The model's config.
        model: The model.
        meta: The ``meta`` of its checkpoint, or nothing.

    Returns:
        ``classes`` and ``palette``.
    """
    count = count_classes(model)
    own = {str(k).lower(): v for k, v in (meta.get("dataset_meta") or meta).items()}
    offers = [own]
    if cfg.get("test_dataloader"):
        offers.append(metainfo_of(cfg.test_dataloader.dataset))
    known = [o for o in offers if o.get("classes") and count in (None, len(o["classes"]))]
    classes = known[0]["classes"] if known else [f"class {i}" for i in range(count or 0)]
    palettes = [o.get("palette") or () for o in reversed(known)]
    colours = next((p for p in palettes if len(p) == len(classes)), _colours(len(classes)))
    return {"classes": classes, "palette": [tuple(colour) for colour in colours]}


def count_classes(model: nn.Module) -> int | None:
    """How many classes a model tells apart; ``None`` if no head says so."""
    roi_head = getattr(model, "roi_head", None)
    owners = (
        (model, "decode_head"),
        (roi_head, "bbox_head"),
        (model, "bbox_head"),
        (model, "head"),
    )
    for owner, name in owners:
        head = getattr(owner, name, None)
        if isinstance(head, nn.ModuleList):
            head = head[-1]
        count = getattr(head, "num_classes", None)
        if count is not None:
            return max(count, 2) if getattr(head, "out_channels", None) == 1 else count
    return None


def _colours(count: int) -> list[list[int]]:
    return np.random.RandomState(0).randint(0, 256, (count, 3)).tolist()
