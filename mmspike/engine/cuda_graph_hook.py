"""Runs backbone and neck as CUDA graphs."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmspike.fused import GraphedFeatures
from mmspike.registry import HOOKS


@HOOKS.register_module()
class CudaGraphHook(Hook):
    """Record backbone and neck as CUDA graphs, and replay them: one launch for all kernels.

    At small T a step takes as long as launching its kernels does; replaying does away with that.
    It pays for images of one or few sizes, such as crops. Results are those without; see
    :class:`mmspike.fused.GraphedFeatures` for what runs plainly, of which the log tells.

    Args:
        max_graphs: Recordings of training, and of inference, that are kept; images of further
            sizes run plainly.
        warmup: Plain calls on images of a size before it is recorded.

    Raises:
        ValueError: If a number is below 1, or the model has no ``extract_feat``.

    Examples:
        ``custom_hooks = [dict(type="mmspike.CudaGraphHook")]`` in a config.
    """

    def __init__(self, max_graphs: int = 8, warmup: int = 3) -> None:
        for name, value in (("max_graphs", max_graphs), ("warmup", warmup)):
            if type(value) is not int or value < 1:
                raise ValueError(f"CudaGraphHook: {name} must be a number from 1, got {value!r}")
        self.options = {"max_graphs": max_graphs, "warmup": warmup}
        self.features: GraphedFeatures | None = None

    def before_train(self, runner: Runner) -> None:
        """Put the recorder over the model's ``extract_feat``; after hooks that copy the model."""
        self._install(runner)

    def before_val(self, runner: Runner) -> None:
        """As for a training; weights may be others than at the last validation."""
        self._install(runner).forget_inference()

    def before_test(self, runner: Runner) -> None:
        """See :meth:`before_val`."""
        self.before_val(runner)

    def after_val(self, runner: Runner) -> None:
        """Give the memory back."""
        self._install(runner).forget_inference()

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was."""
        self._remove(runner)

    def after_test(self, runner: Runner) -> None:
        """Leave the model as it was."""
        self._remove(runner)

    def _install(self, runner: Runner) -> GraphedFeatures:
        model = _unwrapped(runner.model)
        if self.features is not None:
            return self.features
        if not callable(getattr(model, "extract_feat", None)):
            raise ValueError(
                f"CudaGraphHook: {type(model).__name__} has no extract_feat(images), as mmdet's "
                "detectors and mmseg's segmentors have"
            )
        self.features = model.extract_feat = GraphedFeatures(model, **self.options)
        return self.features

    def _remove(self, runner: Runner) -> None:
        vars(_unwrapped(runner.model)).pop("extract_feat", None)
        self.features = None


def _unwrapped(model: Any) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
