"""The weights that a run evaluates: loaded here, whole, and by nobody again."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmspike.checkpoints import load_whole
from mmspike.deploy import switch_to_deploy, unroll


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
