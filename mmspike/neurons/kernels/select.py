"""Picks the implementation that runs a LIF: the one that is asked for, or the fastest."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmspike.neurons import functional
from mmspike.neurons.kernels import cupy, eager, native, triton
from mmspike.neurons.kernels.compiled import constants

BACKENDS = ("auto", "torch", "eager", "native", "triton", "cupy", "spikingjelly")
"""``torch`` is the reference under autograd, ``eager`` torch with a backward pass by hand,
``native`` C++ on the CPU, ``triton`` and ``cupy`` our kernels for CUDA, ``spikingjelly`` its Triton
or CUDA ones."""


def lif_multi_step(x_seq: Tensor, backend: str, **parameters: Any) -> Tensor:
    """See :func:`mmspike.neurons.functional.lif_multi_step`.

    Args:
        x_seq: Input, ``[T, ...]``.
        backend: One of ``BACKENDS``.
        **parameters: All those of the reference.

    Raises:
        RuntimeError: If the backend is not there, or cannot run this input or surrogate.
    """
    if torch.compiler.is_compiling():
        if backend not in ("auto", "torch"):
            return _outside_of_graphs(x_seq, backend, parameters)
        return functional.lif_multi_step(x_seq, **constants(parameters))
    if backend == "auto":
        backend = choose(x_seq, parameters["surrogate"])
    else:
        check(backend, x_seq, parameters["surrogate"])
    return _implementation(backend)(x_seq, **parameters)


@torch.compiler.disable(reason="only a LIF of backend 'auto' or 'torch' can be compiled")
def _outside_of_graphs(x_seq: Tensor, backend: str, parameters: dict[str, Any]) -> Tensor:
    return lif_multi_step(x_seq, backend, **parameters)


def choose(x_seq: Tensor, surrogate: object) -> str:
    """The fastest backend for an input, by rule: the same input gets the same in every run.

    While a graph is compiled, that is the reference, which the compiler fuses. On the CPU it is
    ``native``, where it was compiled; on a GPU ``triton``, for float64 or more than 16 steps, or
    where it is not installed, ``cupy``, and ``eager`` without that. Where the fastest are not
    there, a warning says so, once.
    """
    if torch.compiler.is_compiling() or not eager.supports(surrogate):
        return "torch"
    if x_seq.device.type == "cpu":
        if native.supports(surrogate):
            return "native"
        if not native.is_available():
            _warn("LIF: mmspike's kernels for the CPU are not compiled; plain torch runs, slower")
        return "eager"
    if x_seq.device.type == "cuda":
        return _on_cuda(x_seq)
    return "eager"


def _on_cuda(x_seq: Tensor) -> str:
    if triton.is_available() and triton.why_not(x_seq) is None:
        return "triton"
    if cupy.is_available():
        return "cupy"
    _warn("LIF: neither Triton nor CuPy runs this neuron on the GPU; plain torch does, slower")
    return "eager"


def check(backend: str, x_seq: Tensor, surrogate: object) -> None:
    """Refuse a backend that cannot run an input.

    Raises:
        RuntimeError: If it cannot; it says why.
    """
    if backend in ("torch", "spikingjelly"):
        return
    module = _module(backend)
    needed = {"native": "cpu", "cupy": "cuda", "triton": "cuda"}.get(backend)
    device = x_seq.device.type
    if needed not in (None, device):
        raise RuntimeError(f"LIF: backend={backend!r} runs on {needed}, the input is on {device}")
    if backend != "eager" and not module.is_available():
        hint = {
            "native": "was not compiled: install a C++ compiler, then mmspike again",
            "triton": "needs Triton and a GPU: pip install triton",
            "cupy": "needs CuPy and a GPU: pip install cupy-cuda13x (or cupy-cuda12x)",
        }
        raise RuntimeError(f"LIF: backend={backend!r} {hint[backend]}")
    if not module.supports(surrogate):
        raise RuntimeError(
            f"LIF: backend={backend!r} has no backward pass for {surrogate}; 'torch' takes any"
        )


def _module(backend: str) -> ModuleType:
    return importlib.import_module(f"mmspike.neurons.kernels.{backend}")


def _implementation(backend: str) -> Callable[..., Tensor]:
    return (functional if backend == "torch" else _module(backend)).lif_multi_step


@lru_cache
def _warn(message: str) -> None:
    print_log(message, "current", level=logging.WARNING)
