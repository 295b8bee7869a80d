"""Activation checkpointing that leaves the statistics of batch norms alone."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmspike.fused.switch import enabled, is_enabled


class FrozenStatistics(AbstractContextManager):
    """Runs the batch norms inside ``module`` without updating their running statistics.

    It can be entered again, once left: each backward pass that computes anew does so.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        norms = [m for m in self.module.modules() if isinstance(m, _BatchNorm) and m.training]
        self.momenta = [(m, m.momentum) for m in norms]
        counts = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        self.counts = [(count, count.clone()) for count in counts]
        for m in norms:
            m.momentum = 0.0

    def __exit__(self, *error: object) -> None:
        for m, momentum in self.momenta:
            m.momentum = momentum
        for count, before in self.counts:
            count.copy_(before)


class _Recomputation(AbstractContextManager):
    """Computes anew as the first time: the same paths, statistics frozen; on whatever thread."""

    def __init__(self, module: nn.Module, fused: bool) -> None:
        self.module, self.fused = module, fused

    def __enter__(self) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(FrozenStatistics(self.module))
        self.stack.enter_context(enabled(self.fused))

    def __exit__(self, *error: object) -> None:
        self.stack.close()


def checkpointed(module: nn.Module, x: Tensor) -> Tensor:
    """Call ``module(x)``, keep no activations, and compute them again in the backward pass.

    Statistics of batch norms are updated once, in the first pass. Results and state are the same as
    without checkpointing as long as each forward pass is followed by its backward pass: RepConv's
    border is read from the running statistics, which a second forward pass would move.

    Raises:
        RuntimeError: If a graph is compiled around it; the module itself may be compiled.
    """
    if torch.compiler.is_compiling():
        raise RuntimeError(
            "checkpointing (with_cp) inside a compiled graph would update statistics twice: "
            "compile what is checkpointed, as backbone.compile() and mmspike.CompileHook do"
        )

    again = _Recomputation(module, is_enabled())

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), again

    return checkpoint(module, x, use_reentrant=False, context_fn=contexts)
