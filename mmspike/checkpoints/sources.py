"""Recognising where a checkpoint comes from, and finding the backbone in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmspike.checkpoints.reading import CheckpointError, CheckpointFile
from mmspike.checkpoints.upstream import translate_key, translate_state_dict

_CONTAINERS = ("state_dict", "model", "module", "net")
_WRAPPERS = ("module.", "_orig_mod.")  # of distributed training and of torch.compile
_HEADS = ("head.", "head_kd.")  # of classification
_ROOTS = ("stages.", "downsample", "ConvBlock", "block3.", "block4.")  # of backbones


@dataclass(frozen=True)
class Source:
    """The tensors of a checkpoint, sorted.

    Attributes:
        format: What the checkpoint is, in words.
        backbone: Tensors of the backbone under this project's names.
        heads: Tensors of classification heads, ``head.*`` and ``head_kd.*``.
        unknown: Names of tensors inside the backbone that no Meta-SpikeFormer has.
        ignored: Names of tensors outside the backbone.
        reshaped: Names, as ``backbone`` has them, of those stored in another shape.
    """

    format: str
    backbone: dict[str, Tensor]
    heads: dict[str, Tensor]
    unknown: list[str]
    ignored: list[str]
    reshaped: list[str]


def sort_checkpoint(file: CheckpointFile, prefix: str = "") -> Source:
    """Find the backbone in a checkpoint.

    It may be a published classification checkpoint, one of this project's, or a whole detector's
    or segmentor's; bare or in a container with other things; from one process or from several.

    Args:
        file: What was read.
        prefix: What the names of wanted tensors start with, where a file holds several networks.

    Raises:
        CheckpointError: If the file holds no tensors, or none of a Meta-SpikeFormer.
    """
    tensors, container = find_tensors(file)
    if prefix:
        tensors = _under(prefix.removesuffix(".") + ".", tensors, file)
    tensors = strip_wrappers(tensors)
    is_part = any(key.startswith("backbone.") for key in tensors)
    mine = {k: v for k, v in tensors.items() if k.startswith("backbone.")} if is_part else tensors
    mine = _strip(mine, ("backbone.", *_WRAPPERS))
    heads = {k: v for k, v in tensors.items() if k.startswith(_HEADS)}
    published = translate_state_dict(mine)
    backbone = published or {k: v for k, v in mine.items() if k.startswith("stages.")}
    names = [k for k in mine if translate_key(k)] if published else list(backbone)
    if not backbone:
        raise CheckpointError(
            f"checkpoint {file.path}: no tensor of a Meta-SpikeFormer in it; its names are "
            f"{shorten(tensors)}"
        )
    part = "backbone." if is_part else ""
    outside = [k for k in tensors if part and not k.startswith((part, *_HEADS))]
    others = [k for k in mine if k not in names and k not in heads]
    unknown = [k for k in others if part or k.startswith(_ROOTS)]
    reshaped = [translate_key(k) for k in names if mine[k].dim() == 3] if published else []
    return Source(
        format=_describe(bool(published), is_part, bool(heads), container),
        backbone=backbone,
        heads=heads,
        unknown=unknown,
        ignored=[k for k in others if k not in unknown] + outside,
        reshaped=reshaped,
    )


def shorten(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def arch_of(backbone: Mapping[str, Tensor]) -> list[int] | None:
    """The widths of the four stages that a backbone's tensors have, if all are there."""
    weights = [backbone.get(f"stages.{i}.downsample.layer.weight") for i in range(1, 5)]
    return None if any(w is None for w in weights) else [w.size(0) for w in weights]


def find_tensors(file: CheckpointFile) -> tuple[dict[str, Tensor], str | None]:
    """The state dict, and the key of the container that it lies in."""
    content, container = file.content, None
    if isinstance(content, Mapping):
        for key in _CONTAINERS:
            if isinstance(content.get(key), Mapping):
                content, container = content[key], key
                break
    if isinstance(content, Mapping) and not content:
        raise CheckpointError(f"checkpoint {file.path}: the state dict in it is empty")
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"checkpoint {file.path}: expected a state dict, or a dict with one under "
            f"{' or '.join(map(repr, _CONTAINERS))}; the file holds a "
            f"{type(file.content).__name__}"
        )
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(
            f"checkpoint {file.path}: holds no tensors; its keys are "
            f"{shorten(map(str, file.content))}"
        )
    return tensors, container


def _under(prefix: str, tensors: dict[str, Tensor], file: CheckpointFile) -> dict[str, Tensor]:
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if not found:
        raise CheckpointError(
            f"checkpoint {file.path}: no tensor under prefix {prefix!r}; its names are "
            f"{shorten(tensors)}"
        )
    return found


def strip_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what distributed training and torch.compile put in front of every name."""
    return _strip(tensors, _WRAPPERS)


def _strip(tensors: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Take off prefixes that every name has."""
    for prefix in prefixes:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _describe(published: bool, is_part: bool, has_heads: bool, container: Any) -> str:
    if published and is_part:
        return "detector or segmentor with published names"
    if published and (has_heads or container == "model"):
        return "Meta-SpikeFormer classification checkpoint"
    if published:
        return "bare Meta-SpikeFormer state dict"
    if is_part:
        return "mmspike classifier" if has_heads else "mmspike detector or segmentor"
    return "mmspike backbone"
