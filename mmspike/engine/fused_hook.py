"""Says in the log what of a model runs fused."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmspike.fused import explained
from mmspike.registry import HOOKS


@HOOKS.register_module()
class FusedReportHook(Hook):
    """Logs one line after the first iteration of a training or a test.

    Such as ``fused: 88 of 92 layers; 4 plain: the kernels know LIF, not ReLU``;
    ``tools/analysis_tools/explain_fused.py`` tells layer by layer.
    """

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self._stack: ExitStack | None = None
        self._done = False

    def _before(self, runner: Runner) -> None:
        if self._done:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._stack = ExitStack()
        self._explanation = self._stack.enter_context(explained(model))

    def _after(self, runner: Runner) -> None:
        if self._stack is None:
            return
        self._stack.close()
        self._stack, self._done = None, True
        if self._explanation.layers:
            runner.logger.info(str(self._explanation))

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Begin to look."""
        self._before(runner)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log."""
        self._after(runner)

    before_test_iter = before_train_iter
    after_test_iter = after_train_iter
