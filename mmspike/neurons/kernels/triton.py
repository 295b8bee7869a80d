"""LIF in Triton kernels: all steps in one pass over memory, launched in microseconds.

The backward pass computes the potentials again from the input, which is all that is kept. Triton
comes with torch for CUDA.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from mmspike.neurons.kernels import eager
from mmspike.neurons.kernels.common import LIFFunction, LIFParameters

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

MAX_STEPS = 16
"""Time steps up to which the potentials of the backward pass stay in registers."""


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def is_available() -> bool:
    """Whether Triton is installed and torch finds a CUDA device."""
    return has_triton() and torch.cuda.is_available()


def supports(surrogate: object) -> bool:
    """Whether the kernels have the slope of this surrogate function."""
    return eager.supports(surrogate)


def why_not(x_seq: Tensor) -> str | None:
    """Why the kernels do not take an input ``[T, ...]``; ``None`` if they do."""
    if x_seq.dtype not in DTYPES:
        return f"the kernels take float32 and halves, not {str(x_seq.dtype).removeprefix('torch.')}"
    if x_seq.size(0) > MAX_STEPS:
        return f"the kernels take up to {MAX_STEPS} time steps, not {x_seq.size(0)}"
    return None


def lif_multi_step(x_seq: Tensor, **parameters: Any) -> Tensor:
    """See :func:`mmspike.neurons.functional.lif_multi_step`: the same spikes and gradients.

    Args:
        x_seq: Input on a CUDA device, ``[T, ...]``.
        **parameters: All those of the reference; ``supports(surrogate)`` must hold.

    Returns:
        Spikes of 0 and 1, shaped and typed like ``x_seq``, each step laid out in memory as its.

    Raises:
        TypeError: If the kernels do not take the input.
    """
    why = why_not(x_seq)
    if why is not None:
        raise TypeError(f"LIF by Triton: {why}")
    return LIFFunction.apply(x_seq, LIFParameters(**parameters), forward, backward)


def forward(x: Tensor, s: Tensor, p: LIFParameters) -> None:
    """Write the spikes of ``x`` into ``s``; both ``[T, N]``."""
    _launch("forward", p, x, s)


def backward(x: Tensor, grad_s: Tensor, grad_x: Tensor, p: LIFParameters) -> None:
    """Write the gradient of ``x`` into ``grad_x``; all ``[T, N]``."""
    _launch("backward", p, x, grad_s, grad_x)


def _launch(name: str, p: LIFParameters, *matrices: Tensor) -> None:
    x = matrices[0]
    if x.numel():
        neuron = (*p[:4], type(p.surrogate), p.surrogate.alpha, p.detach_reset)
        strides = tuple(m.stride(0) for m in matrices)
        _kernel(name, neuron, x.shape, strides, x.dtype, x.device)(*matrices)


@lru_cache(maxsize=1024)
def _kernel(name: str, neuron: tuple, shape: torch.Size, strides: tuple, *_: Any) -> Any:
    from mmspike.neurons.kernels import triton_lif

    *rest, surrogate, alpha, detach_reset = neuron
    p = LIFParameters(*rest, surrogate(alpha), detach_reset)  # type: ignore[call-arg]
    return triton_lif.launch(name, p, shape, strides)
