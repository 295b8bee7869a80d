"""Why no engine takes something, whatever its kernels; ``None`` where they may."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from mmspike.fused.watch import is_watched
from mmspike.neurons import LIF, name_of


def why_not_plain(x: Tensor) -> str | None:
    """Why a tensor cannot be computed with past torch's operators."""
    if type(x) is not Tensor:
        return f"{type(x).__name__} is not a plain tensor"
    if _get_current_dispatch_mode() is not None:
        return "a counter watches the operators"
    if torch.jit.is_tracing():
        return "the model is traced"
    return None if x.numel() else "the input is empty"


def why_not_lif(
    neuron: nn.Module, x_seq: Tensor, backend: str, supports: Callable[[object], bool]
) -> str | None:
    """Why kernels do not run a neuron on maps ``[T, B, C, H, W]``.

    Args:
        neuron: The neuron.
        x_seq: Its input.
        backend: What a neuron may ask for by name, beside ``"auto"``.
        supports: Tells whether the kernels know a surrogate function.
    """
    if type(neuron) is not LIF:
        return f"the kernels know LIF, not {name_of(neuron)}"
    if neuron.backend not in ("auto", backend):
        return f"the neuron asks for backend {neuron.backend!r}"
    if not supports(neuron.surrogate_function):
        return f"the kernels do not know the surrogate {type(neuron.surrogate_function).__name__}"
    return why_not_map(neuron, x_seq)


def why_not_map(neuron: nn.Module, x_seq: Tensor) -> str | None:
    """Why kernels that know a neuron do not run it on ``x_seq``."""
    if x_seq.dim() != 5:
        return "the input is no map [T, B, C, H, W]"
    return "the neuron has hooks" if is_watched(neuron) else None
