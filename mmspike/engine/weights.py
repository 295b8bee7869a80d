"""The weights of a run: what it evaluates, loaded whole, and what it need not start from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmspike.checkpoints import load_whole
from mmspike.deploy import switch_to_deploy, unroll
from mmspike.engine.configs import as_list, is_pretrained


def keep_runner_from_loading(cfg: Config) -> None:
    """Leave a runner nothing to load when its run begins.

    mmengine loads ``load_from``, or resumes, in ``Runner.test()``: after all that a tool has done
    to the model, and whatever happens to fit. What was folded would get unfolded weights.

    Args:
        cfg: Config; changed in place.
    """
    cfg.load_from = None
    cfg.resume = False


def load_for_test(
    runner: Runner,
    checkpoint: str,
    *,
    deploy: bool = False,
    unrolled: bool = False,
    allow_unexpected: bool = False,
) -> None:
    """Give a runner's model its weights, all of them, and fold or unroll it if that is wanted.

    Args:
        runner: Runner of a config that :func:`keep_runner_from_loading` has seen.
        checkpoint: Checkpoint file.
        deploy: Whether to fold the model for inference, after loading.
        unrolled: Whether to run its integer neurons as binary frames.
        allow_unexpected: Whether the file may hold tensors that the model has not.

    Raises:
        CheckpointError: If the file cannot be read or is another model's.
        ValueError: If a model without integer neurons is to be unrolled.
    """
    model = unwrap(runner.model)
    load_whole(model, checkpoint, allow_unexpected=allow_unexpected)
    runner.logger.info(f"evaluating the weights of {checkpoint}")
    for hook in [hook for hook in runner.hooks if isinstance(hook, EMAHook)]:
        runner.hooks.remove(hook)  # the file has the averages already, which it would write again
    if deploy:
        runner.logger.info(f"--deploy: {switch_to_deploy(model)}")
    if unrolled:
        runner.logger.info(f"--unroll: {unroll(model)}")


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of distributed runs and of test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def leave_out_absent(model: nn.Module, resumed: str) -> None:
    """Start a run that resumes without the pretrained files that are gone: it needs none of them.

    The config, which is written into checkpoints, keeps them.

    Args:
        model: Model that is not initialised; the ``init_cfg`` of its parts is changed.
        resumed: The checkpoint that all weights come from.
    """
    for module in model.modules():
        given = getattr(module, "init_cfg", None)
        absent = [c for c in as_list(given) if is_pretrained(c) and is_absent(c.get("checkpoint"))]
        if absent:
            files = ", ".join(str(cfg["checkpoint"]) for cfg in absent)
            print_log(f"init_cfg: {files} is not there, nor needed: resuming {resumed}", "current")
            module.init_cfg = [cfg for cfg in as_list(given) if cfg not in absent] or None


def is_absent(file: Any) -> bool:
    """Whether a config names a file, and no address, and it is not there."""
    named = isinstance(file, str | os.PathLike) and bool(os.fspath(file))
    return named and "://" not in os.fspath(file) and not Path(file).expanduser().is_file()
