"""Loads the compiled kernels."""

from __future__ import annotations

import ctypes
import logging
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from torch import Tensor

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
"""Numbers that the kernels know types of elements by."""

LEVELS = ("generic", "avx2", "avx512")
"""Instruction sets that the kernels are compiled for, by their number."""


class LIFStruct(ctypes.Structure):
    """``struct LIF`` of csrc/native.cpp."""

    _fields_: ClassVar = [
        *((name, ctypes.c_double) for name in ("tau", "threshold", "rest", "alpha")),
        *(
            (name, ctypes.c_int32)
            for name in ("soft_reset", "decay_input", "detach_reset", "surrogate")
        ),
    ]


class NormStruct(ctypes.Structure):
    """``struct Norm`` of csrc/native.cpp."""

    _fields_: ClassVar = [
        *((name, ctypes.c_void_p) for name in ("scale", "shift", "mean")),
        ("channels", ctypes.c_int64),
    ]


class ConvStruct(ctypes.Structure):
    """``struct Conv`` of csrc/native.cpp."""

    _fields_: ClassVar = [
        (name, ctypes.c_int64)
        for name in (
            *("images", "height", "width", "channels"),
            *("out_height", "out_width", "out_channels"),
            *("kernel_height", "kernel_width", "stride_height", "stride_width"),
            *("pad_height", "pad_width", "table"),
        )
    ]


VERSION = 3
"""What ``mmspike_version()`` of csrc/native.cpp gives: a library of another one is not called."""


@lru_cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; ``None`` where there are none, or, with a warning, none that fit."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if path.is_file():
            try:
                lib = ctypes.CDLL(str(path))  # torch, imported above, has loaded its OpenMP by now
                version = lib.mmspike_version()
            except (OSError, AttributeError) as error:
                version = f"one that cannot be loaded ({error})"
            if version != VERSION:
                text = f"{path}: kernels of version {VERSION} are wanted, found {version}; install "
                print_log(text + "mmspike again", "current", level=logging.WARNING)
                return None
            lib.mmspike_lif_forward.restype = ctypes.c_int64
            lib.mmspike_packed_size.restype = ctypes.c_int64
            lib.mmspike_conv_fire.restype = ctypes.c_int64
            return lib
    return None


def is_available() -> bool:
    """Whether the kernels were compiled."""
    return library() is not None


def level() -> str:
    """The instruction set in use.

    Raises:
        RuntimeError: If the kernels were not compiled.
    """
    return LEVELS[loaded().mmspike_level()]


def loaded() -> ctypes.CDLL:
    """The compiled kernels.

    Raises:
        RuntimeError: If they were not compiled.
    """
    lib = library()
    if lib is None:
        raise RuntimeError(
            "mmspike's kernels for the CPU are not compiled: install a C++ compiler (gcc), then "
            "mmspike again (pip install --no-build-isolation -e .)"
        )
    return lib


def call(name: str, *args: Any) -> Any:
    """Run a kernel, ``mmspike_<name>``; torch's profiler lists it as ``mmspike::<name>``.

    Raises:
        RuntimeError: If the kernels were not compiled.
    """
    kernel = getattr(loaded(), f"mmspike_{name}")
    if not torch.autograd._profiler_enabled():
        return kernel(*args)
    with torch.profiler.record_function(f"mmspike::{name}"):
        return kernel(*args)


def pointer(x: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor's elements begin; null for ``None``."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())
