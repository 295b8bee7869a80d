"""Whether somebody looks at what goes into a module and comes out."""

from __future__ import annotations

from torch import nn


def is_watched(module: nn.Module) -> bool:
    """Whether a module has to be called, since hooks, or a ``forward`` put over it, want to see."""
    return bool(
        "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or nn.modules.module._has_any_global_hook()
    )
