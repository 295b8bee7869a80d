"""Checks, when a model is built, that its parts agree on strides, channels and the time axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

_HOSTS = ("mmcv", "mmdet", "mmseg", "mmpretrain")
_HEADS = (
    "rpn_head",
    "roi_head",
    "bbox_head",
    "mask_head",
    "decode_head",
    "auxiliary_head",
    "head",  # of a classifier
)


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


def expect_sequences_where_read(model: nn.Module) -> None:
    """Check that sequences ``[T, B, C, H, W]`` go to parts that read them, and maps to the others.

    Spiking parts say so by ``takes_sequences`` and ``gives_sequences``; those of the hosts read and
    give maps ``[B, C, H, W]``. A class of anyone else's that says nothing is not judged.

    Args:
        model: A detector, segmentor or classifier.

    Raises:
        ValueError: At the first part that reads what the one before it does not give.
    """
    source, gives = "backbone", _says(model.backbone, "gives_sequences")
    for name, part in _chain(model):
        takes = _says(part, "takes_sequences")
        if gives is not None and takes is not None and gives != takes:
            raise ValueError(_mismatch(name, part, source, takes))
        if name.startswith("neck"):
            source, gives = name, _says(part, "gives_sequences")


def _chain(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts after the backbone: necks one after the other, then all heads."""
    for name in ("neck", *_HEADS):
        part = getattr(model, name, None)
        if isinstance(part, nn.Sequential | nn.ModuleList):
            yield from ((f"{name}.{i}", inner) for i, inner in enumerate(part))
        elif isinstance(part, nn.Module):
            yield name, part


def _says(part: nn.Module, what: str) -> bool | None:
    known = type(part).__module__.split(".")[0] in _HOSTS
    return getattr(part, what, False if known else None)


def _mismatch(name: str, part: nn.Module, source: str, takes: bool) -> str:
    kinds = ("maps [B, C, H, W]", "sequences [T, B, C, H, W]")
    cure = f'{source}.decode="mean" averages them over time'
    if takes:
        cure = f"leave {source}.decode out, or put an ordinary neck into mmspike.PerStepNeck"
    elif name.startswith("neck"):
        cure += ", mmspike.PerStepNeck runs the neck step by step"
    return (
        f"{name} ({type(part).__name__}) reads {kinds[takes]}, but the {source} gives "
        f"{kinds[not takes]}; {cure}"
    )
