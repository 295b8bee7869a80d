"""Detectors that check, when they are built, that their parts agree on strides and channels."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors import FasterRCNN, MaskRCNN
from torch import nn

from mmspike.layers.checks import expect, expect_neck_fits
from mmspike.registry import DET_MODELS


def check_detector(detector: nn.Module) -> None:
    """Check that backbone, neck and heads agree on strides and channels.

    A part that does not tell its strides (an ordinary backbone or neck) is not checked.

    Args:
        detector: A detector of mmdet's, one or two stages.

    Raises:
        ValueError: At the first disagreement; it names both sides.
    """
    backbone, neck = detector.backbone, getattr(detector, "neck", None)
    expect_neck_fits(backbone, neck)
    strides = getattr(neck, "out_strides", None)
    if strides is None:
        given = getattr(backbone, "out_strides", [])
        if len(set(given)) < len(given):
            raise ValueError(
                f"the backbone's maps lie at strides {given}, but the neck expects each at twice "
                "the one before; choose backbone.out_indices with one map per stride, or SpikeFPN"
            )
        return
    for name in ("rpn_head", "bbox_head"):
        head = getattr(detector, name, None)
        if head is not None and hasattr(head, "prior_generator"):
            given = [max(s) for s in head.prior_generator.strides]
            expect(f"{name}.anchor_generator.strides", given, "the neck's strides", strides)
            expect(f"{name}.in_channels", head.in_channels, "out_channels", neck.out_channels)
    roi_head = getattr(detector, "roi_head", None)
    for name in ("bbox_head", "mask_head"):
        for head in _parts(roi_head, name):
            what = "the neck's out_channels"
            expect(f"roi_head.{name}.in_channels", head.in_channels, what, neck.out_channels)
    for name in ("bbox_roi_extractor", "mask_roi_extractor"):
        for extractor in _parts(roi_head, name):
            given, what = extractor.featmap_strides, "the first of the neck's strides"
            expect(f"roi_head.{name}.featmap_strides", given, what, strides[: len(given)])
            given, what = extractor.out_channels, "the neck's out_channels"
            expect(f"roi_head.{name}.out_channels", given, what, neck.out_channels)


def _parts(roi_head: nn.Module | None, name: str) -> list[nn.Module]:
    """The modules of that name: none, one, or one per stage of a cascade."""
    part = getattr(roi_head, name, None)
    if part is None:
        return []
    return list(part) if isinstance(part, nn.ModuleList) else [part]


@DET_MODELS.register_module()
class SpikeFasterRCNN(FasterRCNN):
    """mmdet's Faster R-CNN whose parts are checked against one another when it is built."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_detector(self)


@DET_MODELS.register_module()
class SpikeMaskRCNN(MaskRCNN):
    """mmdet's Mask R-CNN whose parts are checked against one another when it is built."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_detector(self)
