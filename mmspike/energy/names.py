"""Names of modules, as a person reads them in a figure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol, TypeVar

_PARTS = {
    "backbone": "Backbone",
    "neck": "Neck",
    "rpn_head": "RPN head",
    "bbox_head": "Box head",
    "mask_head": "Mask head",
    "decode_head": "Decode head",
    "heads": "Heads together",
}
_SILENT = {"layer", "neuron", "norm", "backbone", "roi_head", "stages", "node"}
_WORDS = {
    "lateral_convs": "lateral",
    "fpn_convs": "output",
    "extra_convs": "extra",
    "rpn_conv": "convolution",
    "rpn_cls": "objectness",
    "rpn_reg": "boxes",
    "shared_convs": "convolution",
    "shared_fcs": "linear",
    "fc_cls": "classes",
    "fc_reg": "boxes",
    "cls_neuron": "classes",
    "reg_neuron": "boxes",
    "convs": "convolution",
    "upsample": "upsampling",
    "conv_logits": "masks",
    "scale_heads": "scale",
    "conv_seg": "classes",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(conv|mixer|mlp)(?:\.(.*))?")


class Named(Protocol):
    """What has the name of a module."""

    @property
    def name(self) -> str:
        """The name."""


Row = TypeVar("Row", bound=Named)


def part_of(name: str) -> str:
    """The part of a model that a module belongs to: its first name, two of a RoI head."""
    names = name.removeprefix("module.").split(".")
    return ".".join(names[: 2 if names[0] == "roi_head" else 1]) or "(model)"


def readable_part(part: str) -> str:
    """A part's name in a figure: ``Box head`` for ``roi_head.bbox_head``."""
    last = part.rsplit(".", 1)[-1]
    return _PARTS.get(last, last.replace("_", " ").capitalize())


def place_of(name: str) -> tuple[str, str]:
    """Where in a model a layer or neuron is: stage or part, and unit in it.

    The layers of a block's mixer are one unit, and so are those of its MLP.

    Example:
        >>> place_of("backbone.stages.3.blocks.0.mixer.q_conv")
        ('Stage 3', 'block 1, attention')
        >>> place_of("roi_head.bbox_head.shared_fcs.1.layer")
        ('Box head', 'linear 2')
    """
    name = name.removeprefix("module.")
    stage = re.match(r"(?:backbone\.)?stages\.(\d+)\.(.*)", name)
    if stage is None:
        part = part_of(name)
        return readable_part(part), _readable(name.removeprefix(part).lstrip(".")) or "output"
    group = "Stem" if stage[1] == "0" else f"Stage {stage[1]}"
    block = _BLOCK.match(stage[2])
    if block is None:
        return group, _readable(stage[2]).replace("downsample", "downsampling")
    convolutional = block[2] == "conv" or re.match(r"\d+(\.|$)", block[3] or "")
    mixer = "separable convolution" if convolutional else "attention"
    return group, f"block {int(block[1]) + 1}, {'MLP' if block[2] == 'mlp' else mixer}"


def by_place(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Put rows with a ``name`` together by :func:`place_of`, in the order of a model.

    The groups come in the order in which their first rows do.
    """
    places: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        places.setdefault(place_of(row.name), []).append(row)
    groups = list(dict.fromkeys(group for group, _ in places))
    return dict(sorted(places.items(), key=lambda item: groups.index(item[0][0])))


def _readable(name: str) -> str:
    words = []
    for word in re.split(r"[.\s]+", name):
        if word.isdigit():
            words.append(str(int(word) + 1))
        elif word and word not in _SILENT:
            words.append(_WORDS.get(word, word.replace("_", " ")))
    return " ".join(words)
