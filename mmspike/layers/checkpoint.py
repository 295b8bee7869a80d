"""Activation checkpointing that leaves the statistics of batch norms alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Run the batch norms inside ``module`` without updating their running statistics."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    momenta = [m.momentum for m in norms]
    counts = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
    saved = [count.clone() for count in counts]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        for count, before in zip(counts, saved, strict=True):
            count.copy_(before)


class _Frozen(AbstractContextManager):
    """:func:`frozen_statistics`, entered anew with every backward pass that computes again."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.entered: list[AbstractContextManager] = []

    def __enter__(self) -> None:
        self.entered.append(frozen_statistics(self.module))
        self.entered[-1].__enter__()

    def __exit__(self, *error: object) -> bool | None:
        return self.entered.pop().__exit__(*error)


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

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _Frozen(module)

    return checkpoint(module, x, use_reentrant=False, context_fn=contexts)
