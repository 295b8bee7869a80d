"""LIF in fused CUDA kernels (``lif.cu``), compiled and launched by the optional CuPy.

A pass reads its inputs once and writes its output once; the input is all that is kept between the
passes. Every combination of parameters, time steps and type is compiled at its first use and then
kept, on disk too, by CuPy. The spikes are those of the reference on a CPU. (On a GPU, torch divides
by ``tau`` as a product with ``1 / tau``, which rounds differently unless it is a power of two.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmspike.neurons.kernels import eager
from mmspike.neurons.kernels.common import LIFFunction, LIFParameters

SOURCE = Path(__file__).with_name("lif.cu")

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

THREADS = 128
"""Threads in a block."""

POTENTIALS = 64
"""What a thread keeps in registers at most, unless one neuron has more time steps."""


def is_available() -> bool:
    """Whether CuPy can be imported and torch finds a CUDA device."""
    return torch.cuda.is_available() and _has_cupy()


def supports(surrogate: object) -> bool:
    """Whether ``lif.cu`` has the slope of this surrogate function."""
    return eager.supports(surrogate)


def lif_multi_step(x_seq: Tensor, **parameters: Any) -> Tensor:
    """See :func:`mmspike.neurons.functional.lif_multi_step`: the same spikes and gradients.

    Args:
        x_seq: Input on a CUDA device, ``[T, ...]``.
        **parameters: All those of the reference; ``supports(surrogate)`` must hold.

    Returns:
        Spikes of 0 and 1, shaped and typed like ``x_seq``, each step laid out in memory as its.

    Raises:
        RuntimeError: If CuPy is missing, or the input is not on a CUDA device.
        TypeError: If the input is not of a type in ``DTYPES``.
    """
    if x_seq.dtype not in DTYPES:
        raise TypeError(f"LIF by CuPy: the input must be one of {DTYPES}, got {x_seq.dtype}")
    return LIFFunction.apply(x_seq, LIFParameters(**parameters), forward, backward)


def forward(x: Tensor, s: Tensor, p: LIFParameters) -> None:
    """Write the spikes of ``x`` into ``s``; both ``[T, N]``."""
    _launch("lif_forward", p, x, s)


def backward(x: Tensor, grad_s: Tensor, grad_x: Tensor, p: LIFParameters) -> None:
    """Write the gradient of ``x`` into ``grad_x``; all ``[T, N]``."""
    _launch("lif_backward", p, x, grad_s, grad_x)


def _launch(name: str, p: LIFParameters, *matrices: Tensor) -> None:
    """Run a kernel over its arguments, all ``[T, N]``, on torch's current stream."""
    time_steps, n = matrices[0].shape
    with _torch_stream(matrices[0].device):
        if n == 0:
            return
        vec = _neurons_per_thread(matrices)
        kernel = _kernel(name, _options(p, time_steps, matrices[0].dtype, vec))
        args = [number for m in matrices for number in (m.data_ptr(), m.stride(0))]
        kernel((math.ceil(n / (vec * THREADS)),), (THREADS,), (*args, n))


def _neurons_per_thread(matrices: tuple[Tensor, ...]) -> int:
    """As many as 16 bytes hold, the most that a thread can load at once, or a fraction of it."""
    size, time_steps = matrices[0].element_size(), len(matrices[0])
    starts = [m.data_ptr() for m in matrices]
    if time_steps > 1:
        starts += [m.stride(0) * size for m in matrices]
    vec = max(math.gcd(16, *starts) // size, 1)
    while vec > 1 and vec * time_steps > POTENTIALS:
        vec //= 2
    return vec


def _options(p: LIFParameters, time_steps: int, dtype: torch.dtype, vec: int) -> tuple[str, ...]:
    """What the compiler is told; ``lif.cu`` explains the constants."""
    constants = {
        "DATA": str(dtype).removeprefix("torch."),
        "TIME_STEPS": time_steps,
        "VEC": vec,
        "TAU": float(p.tau),
        "V_THRESHOLD": float(p.v_threshold),
        "V_RESET": float(p.v_reset or 0.0),
        "SOFT_RESET": int(p.v_reset is None),
        "DECAY_INPUT": int(p.decay_input),
        "DETACH_RESET": int(p.detach_reset),
        "SURROGATE": type(p.surrogate).__name__,
        "ALPHA": float(p.surrogate.alpha),
    }
    # A product and a sum contracted to one operation round once where the reference rounds twice.
    # (CuPy adds -ftz=true: magnitudes below 1.2e-38 are taken as 0, in float32.)
    return ("-fmad=false", *(f"-D{name}={value}" for name, value in constants.items()))


@cache
def _kernel(name: str, options: tuple[str, ...]) -> Any:
    import cupy

    return cupy.RawModule(code=SOURCE.read_text(), options=options).get_function(name)


@contextmanager
def _torch_stream(device: torch.device) -> Iterator[None]:
    """Let CuPy launch on a device, on torch's current stream there."""
    if device.type != "cuda":
        raise RuntimeError(
            f"LIF by CuPy needs its input on a CUDA device, got one on {str(device)!r}; "
            "move it there or choose another backend"
        )
    if not _has_cupy():
        toolkit = (torch.version.cuda or "13").split(".")[0]
        raise RuntimeError(
            f"LIF by CuPy: CuPy is not installed; pip install cupy-cuda{toolkit}x, or choose "
            "another backend"
        )
    import cupy

    stream = torch.cuda.current_stream(device).cuda_stream
    with cupy.cuda.Device(device.index), cupy.cuda.ExternalStream(stream):
        yield


def _has_cupy() -> bool:
    try:
        import cupy  # noqa: F401
    except ImportError:
        return False
    return True
