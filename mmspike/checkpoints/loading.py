"""Loading pretrained weights into a model: all of them, or an error that says why not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmspike.checkpoints.fit import compare_tensors
from mmspike.checkpoints.reading import CheckpointError, CheckpointFile, read_checkpoint
from mmspike.checkpoints.record import model_config
from mmspike.checkpoints.report import LoadReport, explain_misfit, is_in
from mmspike.checkpoints.sources import (
    HEADS,
    Source,
    arch_of,
    find_tensors,
    published_head,
    shorten,
    sort_checkpoint,
    strip_wrappers,
)
from mmspike.checkpoints.trained_with import changes_of, read_names, warn_if_trained_otherwise
from mmspike.layers.forms import FormError, check_forms
from mmspike.neurons.build import neuron_state_names


def load_pretrained(
    model: nn.Module,
    file: str | os.PathLike[str],
    *,
    strict: bool = True,
    prefix: str = "",
    allow_missing: str | Sequence[str] = (),
    allow_changed: str | Sequence[str] = (),
) -> LoadReport:
    """Load pretrained weights into a backbone, or into the backbone of a whole model.

    The file may be a published classification checkpoint, a state dict, a checkpoint of this
    project's, or that of a whole detector or segmentor, whose backbone is taken; of ``torch.save``
    or safetensors. The number of time steps is not in a checkpoint: any fits any. A classifier gets
    its heads too. What neurons learn (a ParametricLIFNode its time constant) keeps its start where
    the file has none. The model is changed only if everything fits.

    Args:
        model: ``MetaSpikeFormer``, ``ESpikeFormer``, or a model with one as its ``backbone``.
        file: Path or ``http(s)://`` address.
        strict: Whether file and model must have the same backbone tensors. Otherwise those that fit
            are loaded, and the others stand in the report and in a warning.
        prefix: What the names of wanted tensors start with, where a file holds several networks.
        allow_missing: Tensors of the model, or parts of it such as ``"head.head_kd"``, that the
            file need not have: layers that are new.
        allow_changed: Settings beside the weights in which the model is meant to differ from the
            one in which they were trained, some of :data:`mmspike.checkpoints.trained_with.CHANGES`
            such as ``"time_steps"``, or of those that parts of one's own tell. A warning tells of
            others, where the file tells them.

    Returns:
        What was loaded, and what was not.

    Raises:
        CheckpointError: If the file cannot be read (see
            :func:`~mmspike.checkpoints.reading.read_checkpoint`), holds numbers that are not
            finite, or does not fit; or if ``allow_missing`` or ``allow_changed`` is something else.
        TypeError: If the model has neither.
    """
    allow_missing = read_names("allow_missing", allow_missing)
    model = getattr(model, "module", model)  # inside a wrapper of distributed training
    names = model.state_dict()
    odd = [part for part in allow_missing if not any(is_in(name, part) for name in names)]
    if odd:
        print_log(f"allow_missing: the model has no {', '.join(odd)}", "current", level=30)
    allow_changed = read_names("allow_changed", allow_changed, changes_of(model))
    checkpoint = read_checkpoint(file, mmap=True)
    report = load_tensors(model, checkpoint, strict, prefix, allow_missing)
    parts = {"backbone": getattr(model, "backbone", model)}
    if parts["backbone"] is not model and any(name.startswith("head.") for name in report.loaded):
        parts["head"] = model.head
    trained = model_config(checkpoint.content, checkpoint.metadata)
    warn_if_trained_otherwise(parts, trained, checkpoint.path, allow_changed)
    report = replace(report, sha256=checkpoint.sha256)  # the file was hashed meanwhile
    print_log(str(report), "current", level=20 if report.fits else 30)
    return report


def load_tensors(
    model: nn.Module,
    checkpoint: CheckpointFile,
    strict: bool = True,
    prefix: str = "",
    allow_missing: Sequence[str] = (),
) -> LoadReport:
    """Load what was read, whatever the file says beside its weights.

    All arguments but ``checkpoint``, what was read, are those of :func:`load_pretrained`.

    Returns:
        What was loaded, without the hash of the file.

    Raises:
        CheckpointError, TypeError: As in :func:`load_pretrained`.
    """
    part = "backbone." if hasattr(model, "backbone") else ""
    targets = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith((part, *HEADS) if part else "")
    }
    backbone = getattr(model, "backbone", model)
    if f"{part}stages.0.downsample.layer.weight" not in targets:
        raise TypeError(
            f"load_pretrained: {type(backbone).__name__} is not a MetaSpikeFormer or ESpikeFormer"
        )
    source = sort_checkpoint(checkpoint, prefix)
    offered = {part + name: tensor for name, tensor in source.backbone.items()}
    heads = {published_head(k): k for k in targets if k.startswith(HEADS)}
    if "head.weight" in heads:  # a classifier takes all heads, or says that it has not as many
        source = replace(source, heads={heads.get(k, k): v for k, v in source.heads.items()})
        offered |= source.heads
    _check_form(checkpoint.path, model, offered)
    learnt = neuron_state_names(model)
    if not learnt & offered.keys():  # the file is of other neurons
        targets = {name: tensor for name, tensor in targets.items() if name not in learnt}
    report = _compare(str(checkpoint.path), source, part, offered, targets)
    report = report.with_new(allow_missing)
    if strict and not report.fits:
        raise CheckpointError(explain_misfit(report, source, targets, part))
    tensors = {name: offered[name] for name in report.loaded}
    _check_numbers(report.file, tensors, targets)
    model.load_state_dict(tensors, strict=False)
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


def _check_form(file: Path, model: nn.Module, offered: Mapping[str, Tensor]) -> None:
    """Refuse folded weights for a model that is not, and the other way round."""
    try:
        check_forms(model, offered)
    except FormError as error:
        raise CheckpointError(f"checkpoint {file}: {error}") from error


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
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not is_finite(v)]
    if bad:
        raise CheckpointError(
            f"checkpoint {file}: not all numbers are finite in {shorten(bad)}; the training that "
            "wrote it had diverged, or the file is damaged"
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor are finite in float32."""
    # a finite sum has finite terms, and is cheaper; large finite terms may still overflow it
    total = tensor.sum(dtype=torch.float32)
    return bool(total.isfinite() or tensor.float().isfinite().all())


def load_whole(
    model: nn.Module,
    file: str | os.PathLike[str],
    *,
    allow_unexpected: bool = False,
    key: str = "",
) -> str:
    """Load the checkpoint of a whole model, every tensor of it.

    mmengine's own loading goes on with what happens to fit; numbers measured afterwards may then be
    those of random weights.

    Args:
        model: Detector, segmentor or any other model.
        file: Path or ``http(s)://`` address.
        allow_unexpected: Whether the file may hold tensors that the model has not.
        key: Where the model stands in a config, for warnings, if it is not ``model``.

    Returns:
        Where the model differs from the one that was trained in what is not in the weights, in
        words, which a warning says, too; empty if it does not, or the file does not tell.

    Raises:
        CheckpointError: If the file cannot be read, a tensor is missing, left over, or of another
            shape, or not all numbers are finite.
    """
    checkpoint = read_checkpoint(file, hashed=False)
    offered = strip_wrappers(find_tensors(checkpoint)[0])
    model = getattr(model, "module", model)
    _check_form(checkpoint.path, model, offered)
    targets = model.state_dict()
    if allow_unexpected:
        offered = {name: tensor for name, tensor in offered.items() if name in targets}
    if problems := list(compare_tensors(offered, targets)):
        theirs, ours = (arch_of(tensors, "backbone.") for tensors in (offered, targets))
        if theirs and ours and theirs != ours:
            problems.append(f"the file's widths are {theirs}, model.backbone.arch has {ours}")
        raise CheckpointError(
            f"checkpoint {checkpoint.path} is not of this config's model: {'; '.join(problems)}"
        )
    tensors = {name: offered[name] for name in targets}
    _check_numbers(str(checkpoint.path), tensors, targets)
    model.load_state_dict(tensors)
    trained = model_config(checkpoint.content, checkpoint.metadata)
    return warn_if_trained_otherwise(dict(model.named_modules()), trained, checkpoint.path, key=key)
