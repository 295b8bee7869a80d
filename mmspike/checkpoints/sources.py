"""Recognising where a checkpoint comes from, and finding the backbone in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmspike.archs import META_SPIKEFORMER_DEPTHS
from mmspike.checkpoints.reading import CheckpointError, CheckpointFile
from mmspike.checkpoints.upstream import Family, family_of, find_root, translate_state_dict

_CONTAINERS = ("state_dict", "model", "module", "net")
_WRAPPERS = ("module.", "_orig_mod.")  # of distributed training and of torch.compile
_COUNTS = ("n_averaged", "steps")  # beside the weights that torch's, mmengine's averages hold
HEADS = ("head.", "head_kd.", "neuron.")
"""What the names of a classifier's tensors beside its backbone start with."""
_OUR_HEADS = {f"head.{head}": head for head in HEADS}  # of a SpikeClsHead
_ROOTS = ("stages.", "downsample", "ConvBlock", "block3.", "block4.")  # of backbones


@dataclass(frozen=True)
class Source:
    """The tensors of a checkpoint, sorted.

    Attributes:
        family: The published family of its backbone.
        format: What the checkpoint is, in words.
        backbone: Tensors of the backbone under this project's names.
        heads: Tensors of classification heads, ``head.*``, ``head_kd.*`` and ``neuron.*``; those of
            a :class:`mmspike.cls.SpikeClsHead`, too, have the published names here.
        unknown: Names of tensors inside the backbone that no backbone of the family has.
        ignored: Names of tensors outside the backbone.
        reshaped: Names, as ``backbone`` has them, of those stored in another shape.
    """

    family: Family
    format: str
    backbone: dict[str, Tensor]
    heads: dict[str, Tensor]
    unknown: list[str]
    ignored: list[str]
    reshaped: list[str]


def sort_checkpoint(file: CheckpointFile, prefix: str = "") -> Source:
    """Find the backbone in a checkpoint.

    It may be a published classification checkpoint, one of this project's, or a whole detector's
    or segmentor's; bare or in a container with other things; its names may start with anything,
    such as what distributed training, averaging or Lightning put there. Of a file with a
    ``state_dict`` and others beside it, that is taken; mmengine's ``EMAHook`` puts the averaged
    weights there, and those that are trained into ``ema_state_dict``.

    Args:
        file: What was read.
        prefix: What the names of wanted tensors start with, where a file holds several networks;
            a name of what lies beside the ``state_dict`` counts as a beginning too.

    Raises:
        CheckpointError: If the file holds no tensors, none of a backbone of ours, or several.
    """
    tensors, container = find_tensors(file)
    if prefix:
        tensors = _under(prefix.removesuffix(".") + ".", tensors, file)
    root = _find_root(tensors, file)
    base, part, _ = root.partition("backbone.")
    is_part = bool(part)
    mine = {k.removeprefix(root): v for k, v in tensors.items() if k.startswith(root)}
    of_heads = tuple(base + head for head in HEADS)
    heads = {
        published_head(k.removeprefix(base)): v
        for k, v in tensors.items()
        if k.startswith(of_heads)
    }
    family = family_of(mine)
    published = translate_state_dict(mine)
    backbone = published or {k: v for k, v in mine.items() if k.startswith("stages.")}
    names = [k for k in mine if family.to_ours(k)] if published else list(backbone)
    outside = [k for k in tensors if not k.startswith((root, *of_heads))]
    others = [k for k in mine if k not in names and k not in heads]
    unknown = [k for k in others if is_part or k.startswith(_ROOTS)]
    flat = [family.to_ours(k) for k in names if mine[k].dim() == 3] if published else []
    format_ = _describe(family, bool(published), is_part, bool(heads), container)
    if not prefix:  # where the user has not said which
        format_ += " of averaged weights" if any(k in _COUNTS for k in outside) else ""
        format_ += _beside(container, file.content)
    return Source(
        family=family,
        format=format_,
        backbone=backbone,
        heads=heads,
        unknown=unknown,
        ignored=[k for k in others if k not in unknown] + outside,
        reshaped=[name for name in flat if name is not None],
    )


def published_head(name: str) -> str:
    """The published name of a tensor of a classification head; others stay as they are.

    Examples:
        >>> published_head("head.head_kd.weight")
        'head_kd.weight'
    """
    for ours, theirs in _OUR_HEADS.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def shorten(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def arch_of(tensors: Mapping[str, Tensor], prefix: str = "") -> list[int] | None:
    """The widths of the four stages that a backbone's tensors have, if all are there.

    Args:
        tensors: Its tensors.
        prefix: What their names start with.
    """
    names = (f"{prefix}stages.{i}.downsample.layer.weight" for i in range(1, 5))
    weights = [tensors.get(name) for name in names]
    there = [w for w in weights if w is not None]
    return [w.size(0) for w in there] if len(there) == len(weights) else None


def depths_of(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The blocks of the stem and the four stages that a backbone's tensors have.

    Args:
        tensors: Its tensors, under this project's names.

    Returns:
        ``depths``, as in an ``arch``; nothing where they are those of the published models, or a
        stage has no block.
    """
    blocks = {tuple(name.split(".")[:4]) for name in tensors if ".blocks." in name}
    found = Counter(stage for _, stage, *_ in blocks)
    depths = tuple(found[str(i)] for i in range(len(META_SPIKEFORMER_DEPTHS)))
    return {} if 0 in depths or depths == META_SPIKEFORMER_DEPTHS else {"depths": list(depths)}


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
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} or _flat(content)
    if not tensors:
        raise CheckpointError(
            f"checkpoint {file.path}: holds no tensors; its keys are "
            f"{shorten(map(str, file.content))}"
        )
    return tensors, container


def strip_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what distributed training, torch.compile and averaging put before each name."""
    for prefix in _WRAPPERS:
        rest = {key: value for key, value in tensors.items() if key not in _COUNTS}
        if rest and all(key.startswith(prefix) for key in rest):
            tensors = {key.removeprefix(prefix): value for key, value in rest.items()}
    return tensors


def _flat(content: Mapping[Any, Any], depth: int = 4) -> dict[str, Tensor]:
    """The tensors of mappings within mappings, under names joined by dots."""
    out = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            out[str(key)] = value
        elif isinstance(value, Mapping) and depth:
            out |= {f"{key}.{name}": tensor for name, tensor in _flat(value, depth - 1).items()}
    return out


def _under(prefix: str, tensors: dict[str, Tensor], file: CheckpointFile) -> dict[str, Tensor]:
    for offered in (tensors, _flat(file.content)):
        found = {k.removeprefix(prefix): v for k, v in offered.items() if k.startswith(prefix)}
        if found:
            return found
    raise CheckpointError(
        f"checkpoint {file.path}: no tensor under prefix {prefix!r}; its names are "
        f"{shorten(tensors)}"
    )


def _find_root(tensors: dict[str, Tensor], file: CheckpointFile) -> str:
    """What the names of a backbone's tensors start with, where there is one backbone."""
    roots = list(dict.fromkeys(root for key in tensors if (root := find_root(key)) is not None))
    if not roots:
        raise CheckpointError(
            f"checkpoint {file.path}: no tensor of a Meta-SpikeFormer or E-SpikeFormer; "
            f"its names are {shorten(tensors)}"
        )
    if len(roots) > 1:
        raise CheckpointError(
            f"checkpoint {file.path}: holds {len(roots)} networks; say which by prefix=, one of "
            f"{shorten(map(repr, roots), 6)}"
        )
    return roots[0]


def _beside(container: str | None, content: Any) -> str:
    """Say what was left, where networks lie beside the container that was taken."""
    others = [
        str(key)
        for key, value in content.items()
        if container is not None and key != container and isinstance(value, Mapping)
        if any(find_root(str(name)) is not None for name in value)
    ]
    if not others:
        return ""
    averaged = container == "state_dict" and "ema_state_dict" in others
    what = f"{container}, which holds averaged weights" if averaged else container
    return f" (its {what}, not {', '.join(others)})"


def _describe(
    family: Family, published: bool, is_part: bool, has_heads: bool, container: Any
) -> str:
    if published and is_part:
        return f"{family.name} detector or segmentor with published names"
    if published and (has_heads or container == "model"):
        return f"{family.name} classification checkpoint"
    if published:
        return f"bare {family.name} state dict"
    if is_part:
        return "mmspike classifier" if has_heads else "mmspike detector or segmentor"
    return "mmspike backbone"
