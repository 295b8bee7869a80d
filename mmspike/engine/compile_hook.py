"""Compiles parts of a model before a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmspike.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile backbone and neck with ``torch.compile`` before training, validation or testing.

    Names of parameters stay as they are, so that checkpoints fit with and without. Heads are left
    alone: what hosts do there depends on the number of boxes. The backbone is compiled block by
    block.

    Args:
        parts: Names of the modules to compile.
        dynamic: Whether maps of any size run through one graph. By default each size gets its own,
            in training and in inference, which suits runs of one or few, such as crops; torch
            raises ``FailOnRecompileLimitHit`` at some hundred graphs. The backend "inductor" of
            torch 2.13 does not compile these models for any size on a CPU
            (https://github.com/pytorch/pytorch/issues/172204); "aot_eager" does.
        mode: See ``torch.compile``.
        backend: See ``torch.compile``.

    Raises:
        TypeError: If ``dynamic`` is none of these.
        ValueError: If the model has no such part.

    Examples:
        ``custom_hooks = [dict(type="mmspike.CompileHook")]`` in a config.
    """

    def __init__(
        self,
        parts: Sequence[str] = ("backbone", "neck"),
        dynamic: bool | None = False,
        mode: str | None = None,
        backend: str = "inductor",
    ) -> None:
        if dynamic is not None and not isinstance(dynamic, bool):
            raise TypeError(f"CompileHook: dynamic must be True, False or None, got {dynamic!r}")
        self.parts = (parts,) if isinstance(parts, str) else tuple(parts)
        self.options = {"dynamic": dynamic, "mode": mode, "backend": backend, "fullgraph": True}

    def before_run(self, runner: Runner) -> None:
        """Mark the parts; they are compiled when they are called."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        known = dict(model.named_modules())
        for name in self.parts:
            if name not in known:
                raise ValueError(
                    f"CompileHook: the model has no part {name!r}; its parts are "
                    f"{[n for n, _ in model.named_children()]}"
                )
            known[name].compile(**self.options)
        # layers share code, and torch stops at eight graphs of the same code unless told otherwise
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, config.accumulated_recompile_limit)
        runner.logger.info(f"compiled when first called: {', '.join(self.parts)}")
