"""A segmentor that checks, when it is built, that its parts agree on strides and channels."""

from __future__ import annotations

from typing import Any

from mmseg.models.segmentors import EncoderDecoder
from torch import nn

from mmspike.layers.checks import expect, expect_neck_fits
from mmspike.layers.init_log import InitLog
from mmspike.necks import SpikeFPN
from mmspike.neurons import default_neuron
from mmspike.registry import SEG_MODELS


def check_segmentor(segmentor: nn.Module) -> None:
    """Check that backbone, neck and decode head agree on strides and channels.

    A part that does not tell its strides (an ordinary backbone, neck or head) is not checked.

    Args:
        segmentor: A segmentor of mmseg's.

    Raises:
        ValueError: At the first disagreement; it names both sides.
    """
    backbone, neck = segmentor.backbone, getattr(segmentor, "neck", None)
    expect_neck_fits(backbone, neck)
    head = segmentor.decode_head
    strides = getattr(neck, "out_strides", None)
    if neck is None or strides is None or not hasattr(head, "feature_strides"):
        return
    what = "the strides of the neck's levels in decode_head.in_index"
    expect("decode_head.feature_strides", head.feature_strides, what, pick(strides, head.in_index))
    what = "the neck's out_channels, one per level"
    channels = [neck.out_channels] * len(head.in_index)
    expect("decode_head.in_channels", head.in_channels, what, channels)


def pick(levels: list[int], indices: list[int]) -> list[int]:
    """The entries of ``levels`` that ``indices`` name, as far as there are such."""
    return [levels[i] for i in indices if i < len(levels)]


def levels_read(segmentor: nn.Module) -> set[int]:
    """The neck's levels that decode head and auxiliary heads read; all, if one does not tell."""
    auxiliary = getattr(segmentor, "auxiliary_head", None) or []
    several = isinstance(auxiliary, nn.ModuleList | list)
    every = range(segmentor.neck.num_outs)
    read: set[int] = set()
    for head in (segmentor.decode_head, *(auxiliary if several else [auxiliary])):
        index = getattr(head, "in_index", every)
        read |= {every[i] for i in ([index] if isinstance(index, int) else index)}
    return read


@SEG_MODELS.register_module()
class SpikeEncoderDecoder(InitLog, EncoderDecoder):
    """mmseg's encoder and decoder whose parts are checked against one another when built.

    Levels of a :class:`~mmspike.necks.SpikeFPN` that no head reads are not computed, and what makes
    them takes no gradient.

    Args:
        *args: Those of ``mmseg.models.EncoderDecoder``.
        neuron_cfg: Config of all neurons of parts whose own config names none.
        **kwargs: Those of ``mmseg.models.EncoderDecoder``.
    """

    def __init__(self, *args: Any, neuron_cfg: dict[str, Any] | None = None, **kwargs: Any) -> None:
        with default_neuron(neuron_cfg):
            super().__init__(*args, **kwargs)
        check_segmentor(self)
        if isinstance(getattr(self, "neck", None), SpikeFPN):
            self.neck.make_only(levels_read(self))
