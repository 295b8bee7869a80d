"""Loading pretrained weights into a model: all of them, or an error that says why not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from torch import Tensor, nn

from mmspike.checkpoints.reading import CheckpointError, read_checkpoint
from mmspike.checkpoints.sources import (
    Source,
    arch_of,
    find_tensors,
    shorten,
    sort_checkpoint,
    strip_wrappers,
)


@dataclass(frozen=True)
class LoadReport:
    """What happened to the tensors of a checkpoint.

    Attributes:
        file: The file.
        source: What kind of checkpoint it is, in words.
        loaded: Names, as the model has them, of the tensors that were loaded.
        missing: Names of the model's tensors that the file does not have.
        mismatched: Names of tensors whose shape differs, with shape in the file and in the model.
        unexpected: Names of backbone tensors that the model does not have.
        ignored: Names of the file's tensors outside the backbone.
        reshaped: Names of tensors stored in another shape of equal numbers.
        dtypes: How many tensors the file stores in which type.
        sha256: Hash of the file, hexadecimal.
    """

    file: str
    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    dtypes: dict[str, int] = field(default_factory=dict)
    sha256: str = ""

    @property
    def fits(self) -> bool:
        """Whether file and model have the same tensors."""
        return not (self.missing or self.mismatched or self.unexpected)

    def __str__(self) -> str:
        """One line for the log."""
        wanted = [*self.loaded, *self.missing, *self.mismatched]
        what = "backbone" if not any(n.startswith("head") for n in wanted) else "classifier"
        line = f"loaded {len(self.loaded)} of {len(wanted)} {what} tensors from {_a(self.source)}"
        if self.missing:
            line += f"; missing {shorten(self.missing)}"
        if self.mismatched:
            line += f"; of another shape {shorten(self.mismatched)}"
        if self.unexpected:
            line += f"; not in the model {shorten(self.unexpected)}"
        if self.ignored:
            line += f"; ignored {_group(self.ignored)}"
        return f"{line} ({self.file})"


def load_pretrained(
    model: nn.Module,
    file: str | os.PathLike[str],
    *,
    strict: bool = True,
    prefix: str = "",
) -> LoadReport:
    """Load pretrained weights into a backbone, or into the backbone of a whole model.

    The file may be a published classification checkpoint, a state dict, a checkpoint of this
    project's, or that of a whole detector or segmentor, whose backbone is taken; of ``torch.save``
    or safetensors. The number of time steps is not in a checkpoint: any fits any. A classifier gets
    its heads too. The model is changed only if everything fits.

    Args:
        model: ``MetaSpikeFormer``, or a model with one as its ``backbone``.
        file: Path or ``http(s)://`` address.
        strict: Whether file and model must have the same backbone tensors. Otherwise those that fit
            are loaded, and the others stand in the report and in a warning.
        prefix: What the names of wanted tensors start with, where a file holds several networks.

    Returns:
        What was loaded, and what was not.

    Raises:
        CheckpointError: If the file cannot be read (see
            :func:`~mmspike.checkpoints.reading.read_checkpoint`), holds numbers that are not
            finite, or does not fit.
        TypeError: If the model has no ``MetaSpikeFormer``.
    """
    model = getattr(model, "module", model)  # inside a wrapper of distributed training
    part = "backbone." if hasattr(model, "backbone") else ""
    targets = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith((part, "head.", "head_kd.") if part else "")
    }
    if f"{part}stages.0.downsample.layer.weight" not in targets:
        backbone = getattr(model, "backbone", model)
        raise TypeError(f"load_pretrained: {type(backbone).__name__} is not a MetaSpikeFormer")
    checkpoint = read_checkpoint(file, mmap=True)
    source = sort_checkpoint(checkpoint, prefix)
    offered = {part + name: tensor for name, tensor in source.backbone.items()}
    if "head.weight" in targets:  # a classifier takes all heads, or says that it has not as many
        offered |= source.heads
    report = _compare(str(checkpoint.path), source, part, offered, targets)
    if strict and not report.fits:
        raise CheckpointError(_explain(report, source, targets, part))
    tensors = {name: offered[name] for name in report.loaded}
    _check_numbers(report.file, tensors, targets)
    model.load_state_dict(tensors, strict=False)
    report = replace(report, sha256=checkpoint.sha256)  # the file was hashed meanwhile
    print_log(str(report), "current", level=20 if report.fits else 30)
    return report


def _compare(
    file: str,
    source: Source,
    part: str,
    offered: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
) -> LoadReport:
    common = [name for name in targets if name in offered]
    mismatched = {
        name: (tuple(offered[name].shape), tuple(targets[name].shape))
        for name in common
        if offered[name].shape != targets[name].shape
    }
    return LoadReport(
        file=file,
        source=source.format,
        loaded=[name for name in common if name not in mismatched],
        missing=[name for name in targets if name not in offered],
        mismatched=mismatched,
        unexpected=[name for name in offered if name not in targets]
        + [part + name for name in source.unknown],
        ignored=[*(name for name in source.heads if name not in offered), *source.ignored],
        reshaped=[part + name for name in source.reshaped],
        dtypes=dict(Counter(str(t.dtype).removeprefix("torch.") for t in offered.values())),
    )


def _explain(report: LoadReport, source: Source, targets: Mapping[str, Tensor], part: str) -> str:
    """Say what does not fit, and guess why."""
    lines = [f"checkpoint {report.file}, {_a(report.source)}, does not fit the model:"]
    if report.missing:
        lines.append(f"  missing: {shorten(report.missing)}")
    if report.mismatched:
        shapes = [f"{k} {list(a)}, not {list(b)}" for k, (a, b) in report.mismatched.items()]
        lines.append(f"  of another shape: {shorten(shapes)}")
    if report.unexpected:
        lines.append(f"  not in the model: {shorten(report.unexpected)}")
    cause = _guess(source, {k.removeprefix(part): v for k, v in targets.items()}, report)
    if cause:
        lines.append(f"  {cause}")
    return "\n".join(lines)


def _guess(source: Source, targets: Mapping[str, Tensor], report: LoadReport) -> str:
    from mmspike.backbones.meta_spikeformer import ARCHS  # backbones load through this module

    theirs, ours = arch_of(source.backbone), arch_of(targets)
    if theirs is not None and theirs != ours:
        for name, arch in ARCHS.items():
            if list(arch["embed_dims"]) == theirs:
                return f"these widths are the {name} model's: set arch='{name}'"
        return f"the file's widths are {theirs}: set arch=dict(embed_dims={theirs}, num_heads=...)"
    stem = "stages.0.downsample.layer.weight"
    if stem in source.backbone and source.backbone[stem].shape != targets[stem].shape:
        channels = source.backbone[stem].size(1)
        return f"the file is for images of {channels} channels: set in_channels={channels}"
    heads = [name for name in report.mismatched if name.startswith("head")]
    if heads:
        classes = report.mismatched[heads[0]][0][0]
        return f"the file's heads have {classes} classes: set num_classes={classes}"
    if any(name.startswith("head_kd.") for name in report.unexpected):
        return "the file has a second head, of a distilled model: set distilled=True"
    if report.missing and all(name.startswith("head") for name in report.missing):
        if source.heads:
            return "the file has no second head: set distilled=False"
        return "the file has no classification head: load it into model.backbone"
    if report.missing and not report.mismatched:
        return "the file holds a part of the backbone only; strict=False loads what there is"
    return ""


def _check_numbers(file: str, tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Refuse numbers that would not arrive as they are."""
    kinds = {
        k: str(v.dtype).removeprefix("torch.")
        for k, v in tensors.items()
        if v.is_meta or v.is_floating_point() != targets[k].is_floating_point()
    }
    if kinds:
        raise CheckpointError(
            f"checkpoint {file}: holds {next(iter(kinds.values()))} (or no numbers at all) where "
            f"the model has {targets[next(iter(kinds))].dtype}: {shorten(kinds)}"
        )
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not _is_finite(v)]
    if bad:
        raise CheckpointError(
            f"checkpoint {file}: not all numbers are finite in {shorten(bad)}; the training that "
            "wrote it had diverged, or the file is damaged"
        )


def _is_finite(tensor: Tensor) -> bool:
    # a finite sum has finite terms, and is cheaper; large finite terms may still overflow it
    total = tensor.sum(dtype=torch.float32)
    return bool(total.isfinite() or tensor.float().isfinite().all())


def _group(names: list[str]) -> str:
    """Names, or the parts of a model that they belong to where there are many."""
    if len(names) <= 4:
        return ", ".join(names)
    parts = Counter(name.split(".")[0] for name in names)
    return shorten([f"{part}.* ({count})" for part, count in parts.items()], 6)


def _a(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' or noun.startswith('mm') else 'a'} {noun}"


def load_whole(
    model: nn.Module, file: str | os.PathLike[str], *, allow_unexpected: bool = False
) -> None:
    """Load the checkpoint of a whole model, every tensor of it.

    mmengine's own loading goes on with what happens to fit; numbers measured afterwards may then be
    those of random weights.

    Args:
        model: Detector, segmentor or any other model.
        file: Path or ``http(s)://`` address.
        allow_unexpected: Whether the file may hold tensors that the model has not.

    Raises:
        CheckpointError: If the file cannot be read, or a tensor is missing, left over, or of
            another shape.
    """
    checkpoint = read_checkpoint(file, hashed=False)
    offered = strip_wrappers(find_tensors(checkpoint)[0])
    model = getattr(model, "module", model)
    targets = model.state_dict()
    problems = {
        "missing": [name for name in targets if name not in offered],
        "not in the model": [n for n in offered if n not in targets and not allow_unexpected],
        "of another shape": [
            n for n in targets if n in offered and offered[n].shape != targets[n].shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{k}: {shorten(v)}" for k, v in problems.items() if v)
        raise CheckpointError(
            f"checkpoint {checkpoint.path} is not of this config's model: {found}"
        )
    model.load_state_dict({name: offered[name] for name in targets})


def init_weights(module: BaseModule, otherwise: Callable[[], None]) -> None:
    """Initialise a module of mmengine's as its ``init_cfg`` says, pretrained weights whole.

    Args:
        module: As :func:`load_pretrained` takes it. Entries of its ``init_cfg`` of type
            ``Pretrained`` come last; they have ``checkpoint``, and optionally ``prefix`` and
            ``strict``. ``map_location`` is accepted and has no effect: numbers go where the model
            is.
        otherwise: mmengine's way, for the other entries.

    Raises:
        CheckpointError: See :func:`load_pretrained`.
        TypeError: If a ``Pretrained`` entry has another key.
    """
    given = module.init_cfg
    cfgs = given if isinstance(given, list) else [given] if given else []
    kinds = ("Pretrained", "mmengine.Pretrained", PretrainedInit)
    pretrained = [cfg for cfg in cfgs if cfg["type"] in kinds]
    if module.is_init or not pretrained:
        otherwise()
        return
    if len(pretrained) < len(cfgs):
        module.init_cfg = [cfg for cfg in cfgs if cfg not in pretrained]
        otherwise()
        module.init_cfg = given
    for cfg in pretrained:
        _init_from(module, cfg)
    module.is_init = True


def _init_from(model: nn.Module, init_cfg: Mapping[str, Any]) -> LoadReport:
    options = {k: v for k, v in init_cfg.items() if k not in ("type", "checkpoint", "map_location")}
    unknown = set(options) - {"prefix", "strict"}
    if unknown or "checkpoint" not in init_cfg:
        raise TypeError(
            "init_cfg of type 'Pretrained' takes checkpoint, prefix, strict and map_location; "
            f"got {dict(init_cfg)}"
        )
    file = os.fspath(init_cfg["checkpoint"])
    if not file.startswith(("http://", "https://")) and not Path(file).expanduser().is_file():
        raise CheckpointError(
            f"pretrained checkpoint {file}: no such file. Put the published weights there "
            "(docs/transfer.md says where they are), name another file with --cfg-options "
            "model.backbone.init_cfg.checkpoint=FILE, or start from scratch with --cfg-options "
            "model.backbone.init_cfg=None"
        )
    return load_pretrained(
        model,
        file,
        prefix=options.get("prefix") or "",
        strict=options.get("strict", True),
    )
