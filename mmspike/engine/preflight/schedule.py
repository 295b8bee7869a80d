"""The schedule: whether an epoch has a batch, and the warm-up ends before the training does."""

from __future__ import annotations

import math
import os
from typing import Any

from mmspike.engine.configs import as_list, type_name
from mmspike.engine.preflight.report import Report

_TRIAL = 50  # steps; of fewer nothing is learnt anyway, so that the schedule cannot spoil them
_RISING = {  # the factor at the start, where none is given
    "LinearLR": ("start_factor", 1 / 3),
    "ConstantLR": ("factor", 1 / 3),
    "QuadraticWarmupLR": (None, 0.0),
    "WarmupLR": (None, 0.0),
}
_SAMPLERS = (  # an epoch has as many images as the data set
    "DefaultSampler",
    "InfiniteSampler",
    "ClassAwareSampler",
    "AspectRatioBatchSampler",
    "RandomSampler",
    "SequentialSampler",
    "BatchSampler",
)


def check_batch(cfg: dict[str, Any], images: int | None, report: Report) -> None:
    """See that there is a batch, where those that are not full are left out.

    Args:
        cfg: The whole config.
        images: How many images an epoch has, if that is known.
        report: Learns of a batch of more images than there are.
    """
    loader = cfg["train_dataloader"]
    batch, world = loader.get("batch_size"), int(os.environ.get("WORLD_SIZE", 1))
    endless = type_name(loader.get("sampler")) == "InfiniteSampler"
    known = _unknown_sampler(loader) is None and not (endless or loader.get("batch_sampler"))
    if not (images and known and type(batch) is int and loader.get("drop_last")):
        return
    share = math.ceil(images / world)
    if share < batch:
        what = f"is {batch}, but train_dataloader.dataset has {images} images"
        what += f", {share} for each of {world} processes" if world > 1 else ""
        what += ", and train_dataloader.drop_last leaves out a batch that is not full: none is left"
        cure = f"set it to at most {share}, or train_dataloader.drop_last=False"
        report.problem("train_dataloader.batch_size", what, cure)


def check_schedule(cfg: dict[str, Any], images: int | None, report: Report) -> None:
    """Compare the warm-up's end with the end of training.

    Args:
        cfg: The whole config.
        images: How many images an epoch has, if that is known.
        report: Learns of a warm-up that is longer than the training.
    """
    loop = cfg.get("train_cfg") or {}
    epochs, iters = loop.get("max_epochs"), loop.get("max_iters")
    loader = cfg["train_dataloader"]
    epoch_length, unknown = _epoch_length(loader, images), _unknown_sampler(loader)
    total = iters
    if iters is None and epochs is not None and epoch_length is not None and unknown is None:
        total = epochs * epoch_length
    schedulers = cfg.get("param_scheduler")
    if isinstance(schedulers, dict) and "type" not in schedulers:  # one list per optimizer
        schedulers = [s for group in schedulers.values() for s in as_list(group)]
    several = isinstance(schedulers, list | tuple)
    for i, scheduler in enumerate(as_list(schedulers)):
        end = _end_of_rise(scheduler)
        by_epoch = scheduler.get("by_epoch", True) if isinstance(scheduler, dict) else True
        unit, last = ("epoch", epochs) if by_epoch else ("iteration", total)
        key = f"param_scheduler.{i}" if several else "param_scheduler"
        in_epochs = iters is None and epochs is not None
        if end is not None and not by_epoch and in_epochs and unknown is not None:
            report.skip(key, f"since {unknown} may give another number of images per epoch")
        if end is None or last is None or end <= last:
            continue
        length = f"train_cfg.{'max_iters' if epochs is None else 'max_epochs'}"
        what = f"warms up until {unit} {end}, but training ends at {last} ({length})"
        if total is not None and total < _TRIAL:
            report.warn(f"{key}.end", f"{type_name(scheduler)} {what}")
        else:
            cure = f"end it earlier, or raise {length}"
            report.problem(f"{key}.end", f"{type_name(scheduler)} {what}", cure)


def _unknown_sampler(loader: dict[str, Any]) -> str | None:
    """The sampler of a type that is not known to give each image once, if there is one."""
    for name in ("sampler", "batch_sampler"):
        if loader.get(name) is not None and type_name(loader[name]) not in _SAMPLERS:
            kind = type_name(loader[name]) or type(loader[name]).__name__
            return f"train_dataloader.{name} ({kind})"
    return None


def _end_of_rise(scheduler: Any) -> int | None:
    """When a scheduler stops raising the rate, or ``None`` if it does not raise it."""
    if type_name(scheduler) not in _RISING or scheduler.get("end") is None:
        return None
    name, default = _RISING[type_name(scheduler)]
    start = scheduler.get(name, default) if name else default
    return scheduler["end"] if start < scheduler.get("end_factor", 1.0) else None


def _epoch_length(loader: dict[str, Any], images: int | None) -> int | None:
    """Iterations of an epoch, over all processes that a launcher has announced."""
    if isinstance(loader.get("num_batch_per_epoch"), int):
        return loader["num_batch_per_epoch"]
    batch = loader.get("batch_size")
    if images is None or not isinstance(batch, int):
        return None
    batches = images / (batch * int(os.environ.get("WORLD_SIZE", 1)))
    return math.floor(batches) if loader.get("drop_last") else math.ceil(batches)
