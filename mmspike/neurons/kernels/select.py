"""Picks the implementation that runs a LIF: the one that is asked for, or the fastest."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmspike.neurons import functional
from mmspike.neurons.kernels import eager, native
from mmspike.neurons.kernels.compiled import constants

BACKENDS = ("auto", "torch", "eager", "native", "cupy", "spikingjelly")
"""``torch`` is the reference under autograd, ``eager`` torch with a backward pass by hand,
``native`` C++ on the CPU, ``cupy`` our CUDA kernels, ``spikingjelly`` its Triton or CUDA ones."""

ON_CUDA = ("cupy", "spikingjelly", "eager")
"""What ``auto`` measures against one another on a GPU."""


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
    """The fastest backend for an input.

    While a graph is compiled, that is the reference, which the compiler fuses. On the CPU it is
    ``native``, where it was compiled; on a GPU it is what is fastest when measured at the first
    input of its kind. Where the fastest are not there, a warning says so, once.
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
        return _fastest_on(x_seq.device.index or 0, x_seq.dtype, x_seq.size(0), surrogate)
    return "eager"


def check(backend: str, x_seq: Tensor, surrogate: object) -> None:
    """Refuse a backend that cannot run an input.

    Raises:
        RuntimeError: If it cannot; it says why.
    """
    if backend in ("torch", "spikingjelly"):
        return
    module, needed = _module(backend), {"native": "cpu", "cupy": "cuda"}.get(backend)
    device = x_seq.device.type
    if needed not in (None, device):
        raise RuntimeError(f"LIF: backend={backend!r} runs on {needed}, the input is on {device}")
    if backend != "eager" and not module.is_available():
        hint = {
            "native": "was not compiled: install a C++ compiler, then mmspike again",
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


_measured: dict[tuple, str] = {}
_measuring = threading.Lock()


def _fastest_on(index: int, dtype: torch.dtype, steps: int, surrogate: object) -> str:
    key = (index, dtype, steps, type(surrogate))
    with _measuring:  # one thread, while others wait for what it finds
        if key not in _measured:
            _measured[key] = _measure(torch.device("cuda", index), dtype, steps, surrogate)
    return _measured[key]


def _measure(device: torch.device, dtype: torch.dtype, steps: int, surrogate: object) -> str:
    """Time forward and backward of every backend that is there on 4 million neurons."""
    seconds, missing = {}, []
    for backend in ON_CUDA:
        module = _module(backend)
        if not getattr(module, "is_available", lambda: True)() or not module.supports(surrogate):
            missing.append(backend)
            continue
        try:
            seconds[backend] = _time(module.lif_multi_step, device, dtype, steps, surrogate)
        except (RuntimeError, ImportError) as error:
            missing.append(f"{backend} ({str(error).splitlines()[0]})")
    best = min(seconds, key=seconds.get)
    times = ", ".join(f"{k} {1e3 * s:.2f} ms" for k, s in seconds.items())
    print_log(f"LIF on {device}, {dtype}, T = {steps}: {times}; {best} is taken", "current")
    if missing:
        _warn(f"LIF on {device}: {', '.join(missing)} cannot run; {best} does, maybe slower")
    return best


def _time(
    run: Callable[..., Tensor],
    device: torch.device,
    dtype: torch.dtype,
    steps: int,
    surrogate: object,
) -> float:
    p = {"tau": 2.0, "v_threshold": 1.0, "v_reset": 0.0, "decay_input": True}
    with torch.enable_grad():
        x = torch.randn(steps, 2**22, device=device, dtype=dtype, requires_grad=True)
        best = float("inf")
        for _ in range(4):  # the first compiles
            torch.cuda.synchronize(device)
            start = time.perf_counter()
            s = run(x, surrogate=surrogate, detach_reset=True, **p)
            torch.autograd.grad(s, x, s.detach())
            torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - start)
    return best
