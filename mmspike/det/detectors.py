"""Detectors that check, when they are built, that their parts agree on strides and channels."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors import CascadeRCNN, FasterRCNN, MaskRCNN, RetinaNet
from mmdet.models.necks import FPN
from torch import nn

from mmspike.layers.checks import (
    expect,
    expect_neck_fits,
    expect_sequences_where_read,
    is_doubling,
)
from mmspike.layers.init_log import InitLog
from mmspike.neurons import default_neuron
from mmspike.registry import DET_MODELS


def check_detector(detector: nn.Module) -> None:
    """Check that backbone, neck and heads agree on strides, channels and the time axis.

    A part that does not tell its strides (an ordinary backbone or neck) is not checked.

    Args:
        detector: A detector of mmdet's, one or two stages.

    Raises:
        ValueError: At the first disagreement; it names both sides.
    """
    backbone, neck = detector.backbone, getattr(detector, "neck", None)
    expect_neck_fits(backbone, neck)
    neck = getattr(neck, "neck", neck)  # the one inside of a PerStepNeck
    strides = getattr(neck, "out_strides", None) or _strides_of_ordinary(neck, backbone)
    expect_sequences_where_read(detector)
    if neck is None or strides is None:
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


def _strides_of_ordinary(neck: nn.Module | None, backbone: nn.Module) -> list[int] | None:
    """Strides of the levels of mmdet's FPN on a backbone that tells its strides.

    Raises:
        ValueError: If the backbone's maps are not each of twice the stride of the one before.
    """
    given = getattr(backbone, "out_strides", None)
    if given is None:
        return None
    if not is_doubling(given):
        raise ValueError(
            f"the backbone's maps lie at strides {given}, but the neck expects each at twice "
            "the one before; choose backbone.out_indices with one map per stride, or SpikeFPN"
        )
    if not isinstance(neck, FPN):
        return None
    return [given[neck.start_level] * 2**i for i in range(neck.num_outs)]


def _parts(roi_head: nn.Module | None, name: str) -> list[nn.Module]:
    """The modules of that name: none, one, or one per stage of a cascade."""
    part = getattr(roi_head, name, None)
    if part is None:
        return []
    return list(part) if isinstance(part, nn.ModuleList) else [part]


class Checked(InitLog):
    """Mixin for any detector of mmdet's: one neuron for all parts, and a check when it is built."""

    def __init__(self, *args: Any, neuron_cfg: dict[str, Any] | None = None, **kwargs: Any) -> None:
        with default_neuron(neuron_cfg):
            super().__init__(*args, **kwargs)
        check_detector(self)


@DET_MODELS.register_module()
class SpikeFasterRCNN(Checked, FasterRCNN):
    """mmdet's Faster R-CNN whose parts are checked against one another when it is built.

    Args:
        *args: Those of ``mmdet.models.FasterRCNN``.
        neuron_cfg: Config of all neurons of parts whose own config names none.
        **kwargs: Those of ``mmdet.models.FasterRCNN``.
    """


@DET_MODELS.register_module()
class SpikeMaskRCNN(Checked, MaskRCNN):
    """mmdet's Mask R-CNN whose parts are checked against one another when it is built.

    Args:
        *args: Those of ``mmdet.models.MaskRCNN``.
        neuron_cfg: Config of all neurons of parts whose own config names none.
        **kwargs: Those of ``mmdet.models.MaskRCNN``.
    """


@DET_MODELS.register_module()
class SpikeCascadeRCNN(Checked, CascadeRCNN):
    """mmdet's Cascade R-CNN whose parts are checked against one another when it is built.

    Args:
        *args: Those of ``mmdet.models.CascadeRCNN``.
        neuron_cfg: Config of all neurons of parts whose own config names none.
        **kwargs: Those of ``mmdet.models.CascadeRCNN``.
    """


@DET_MODELS.register_module()
class SpikeRetinaNet(Checked, RetinaNet):
    """mmdet's RetinaNet whose parts are checked against one another when it is built.

    Args:
        *args: Those of ``mmdet.models.RetinaNet``.
        neuron_cfg: Config of all neurons of parts whose own config names none.
        **kwargs: Those of ``mmdet.models.RetinaNet``.
    """
