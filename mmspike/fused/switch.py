"""Whether fast paths are taken at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

VARIABLE = "MMSPIKE_FUSED"
"""Environment variable: ``0`` runs every layer plainly."""

CUDA_VARIABLE = "MMSPIKE_FUSED_CUDA"
"""Environment variable: ``1`` lets the engine for GPUs run layers; see docs/benchmarks.md."""

_enabled: ContextVar[bool | None] = ContextVar("mmspike_fused", default=None)


def is_enabled() -> bool:
    """Whether fast paths are taken in this thread.

    Raises:
        ValueError: If the environment variable is neither ``0`` nor ``1``.
    """
    here = _enabled.get()
    return _read(VARIABLE, "1") if here is None else here


def is_cuda_enabled() -> bool:
    """Whether the engine for GPUs may run layers, which it does only where it is asked for.

    Raises:
        ValueError: If the environment variable is neither ``0`` nor ``1``.
    """
    return _read(CUDA_VARIABLE, "0")


def _read(variable: str, otherwise: str) -> bool:
    given = os.environ.get(variable, otherwise)
    if given not in ("0", "1"):
        raise ValueError(f"environment variable {variable} must be 0 or 1, got {given!r}")
    return given == "1"


@contextmanager
def enabled(value: bool = True) -> Iterator[None]:
    """Take fast paths inside, or not, in this thread."""
    token = _enabled.set(value)
    try:
        yield
    finally:
        _enabled.reset(token)


@contextmanager
def disabled() -> Iterator[None]:
    """Run every layer plainly inside, in this thread; backward passes go the way that was taken.

    Examples:
        >>> import torch, mmspike.fused
        >>> from mmspike.backbones import MetaSpikeFormer
        >>> model = MetaSpikeFormer(arch=dict(embed_dims=[8, 8, 16, 16], num_heads=2)).eval()
        >>> with mmspike.fused.disabled():
        ...     maps = model(torch.rand(1, 3, 32, 32))
    """
    with enabled(False):
        yield
