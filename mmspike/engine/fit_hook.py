"""Lets a run begin only with a checkpoint that fits it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, find_latest_checkpoint

from mmspike.checkpoints.fit import (
    changed_settings,
    compare_optimizer,
    compare_schedulers,
    compare_tensors,
)
from mmspike.checkpoints.reading import CheckpointError
from mmspike.checkpoints.record import model_config
from mmspike.checkpoints.sources import shorten
from mmspike.checkpoints.trained_with import changes_of, read_names, warn_if_trained_otherwise
from mmspike.registry import HOOKS

_ALLOW_CHANGED = "FitHook: allow_changed"


@HOOKS.register_module()
class FitHook(Hook):
    """Refuse a checkpoint that does not fit, before anything of it is used.

    A run that resumes needs all of it: weights, optimizer, schedulers, averaged weights of
    ``EMAHook``, counters. mmengine goes on with what happens to fit, and fused optimizers of torch
    crash. ``load_from`` takes what fits and says what does not; where nothing fits, it is refused.

    Args:
        allow_changed: Settings beside the weights in which the model is meant to differ from the
            one in which they were trained, see :func:`mmspike.checkpoints.load_pretrained`.

    Raises:
        CheckpointError: If ``allow_changed`` is no name; before the run, if it names anything else.

    Examples:
        ``custom_hooks = [dict(type="mmspike.FitHook")]`` in a config; ``tools/train.py`` adds it.
    """

    priority = "VERY_HIGH"  # before EMAHook exchanges weights

    def __init__(self, allow_changed: str | Sequence[str] = ()) -> None:
        self.allow_changed = read_names(_ALLOW_CHANGED, allow_changed)

    def before_run(self, runner: Runner) -> None:
        """Compare ``allow_changed`` with what the model has."""
        known = changes_of(runner.model)
        self.allow_changed = read_names(_ALLOW_CHANGED, self.allow_changed, known)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the run with what was read.

        Raises:
            CheckpointError: If it does not fit; the message names what does not.
        """
        given = runner._resume if isinstance(runner._resume, str) else runner._load_from
        file = given or find_latest_checkpoint(runner.work_dir)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parts, trained = dict(model.named_modules()), model_config(checkpoint)
        warn_if_trained_otherwise(parts, trained, file, self.allow_changed)
        if not runner._resume:
            _say_what_fits(runner, checkpoint, file)
            return
        try:
            problems = list(_misfits(runner, checkpoint))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            problems = [
                f"what it holds is not the state of a run ({type(error).__name__}: {error})"
            ]
        if problems:
            raise CheckpointError(
                f"checkpoint {file} does not fit this run, and nothing was resumed:\n  "
                + "\n  ".join(problems)
                + "\nResume with the config that it was written with. To start anew from its "
                "weights, where they fit, use --cfg-options load_from=FILE without --resume"
            )
        settings = changed_settings(
            checkpoint["optimizer"],
            runner.optim_wrapper,
            checkpoint.get("param_schedulers"),
            runner.param_schedulers,
        )
        if changed := list(settings):
            runner.logger.warning(
                "resumed with the settings of the checkpoint, where the config has others: "
                f"{shorten(changed, 8)}"
            )
        _forget_foreign_files(runner, checkpoint["message_hub"]["runtime_info"])


def _targets(runner: Runner) -> dict[str, Any]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return model.state_dict()


def _weights(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict that mmengine takes, under the names that it takes it by."""
    weights = checkpoint.get("state_dict", checkpoint)
    return {re.sub(r"^module\.", "", str(name)): value for name, value in weights.items()}


def _say_what_fits(runner: Runner, checkpoint: Mapping[str, Any], file: str) -> None:
    targets = _targets(runner)
    offered = _weights(checkpoint)
    fit = [k for k, v in targets.items() if getattr(offered.get(k), "shape", None) == v.shape]
    problems = "; ".join(compare_tensors(offered, targets))
    if not fit:
        raise CheckpointError(
            f"load_from: nothing in checkpoint {file} fits the model: {problems}. Weights of a "
            "backbone belong into model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE)"
        )
    if problems:
        runner.logger.warning(
            f"load_from: {len(fit)} of {len(targets)} tensors of the model loaded from {file}; "
            f"{problems}"
        )


def _misfits(runner: Runner, checkpoint: Mapping[str, Any]) -> Iterator[str]:
    parts = ["state_dict", "optimizer", "meta", "message_hub"]
    if runner.param_schedulers is not None:
        parts.append("param_schedulers")
    missing = [part for part in parts if part not in checkpoint]
    if missing:
        yield f"it holds no {', '.join(missing)}: these are not all of a run"
        return
    yield from compare_tensors(_weights(checkpoint), _targets(runner))
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    yield from compare_optimizer(checkpoint["optimizer"], runner.optim_wrapper, names)
    if runner.param_schedulers is not None:
        yield from compare_schedulers(checkpoint["param_schedulers"], runner.param_schedulers)
    elif checkpoint.get("param_schedulers"):
        yield "param_scheduler: it has some, the config has none"
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    if ("ema_state_dict" in checkpoint) != bool(averages):
        has = "has none, the config's EMAHook needs" if averages else "has, and no EMAHook takes,"
        yield f"it {has} averaged weights (ema_state_dict)"
    elif averages:
        ours = averages[0].ema_model.state_dict()
        yield from compare_tensors(checkpoint["ema_state_dict"], ours, "ema_state_dict, ")
    for key in ("epoch", "iter"):
        if not isinstance(checkpoint["meta"].get(key), int):
            yield f"meta.{key} is {checkpoint['meta'].get(key)!r}, not a number"
    for key in ("log_scalars", "runtime_info", "resumed_keys"):
        if not isinstance(checkpoint["message_hub"].get(key), dict):
            yield f"message_hub.{key} is missing"


def _forget_foreign_files(runner: Runner, info: dict[str, Any]) -> None:
    """Leave out names of files that are not this run's; mmengine removes files by these names."""
    work_dir = Path(runner.work_dir).resolve()
    outs = [hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    folders = {work_dir} | {Path(out).resolve() / work_dir.name for out in outs if out}
    for key in [key for key in info if str(key).startswith("best_ckpt")]:
        best = Path(str(info[key]))
        if best.parent.resolve() not in folders or not best.name.startswith("best_"):
            runner.logger.warning(f"{key} {best} is not of this run's folder; it is left alone")
            del info[key]
    kept = info.get("keep_ckpt_ids", [])
    if not (isinstance(kept, list) and all(isinstance(number, int) for number in kept)):
        del info["keep_ckpt_ids"]
