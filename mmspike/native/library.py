"""Loads the compiled kernels."""

from __future__ import annotations

import ctypes
import logging
import os
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
"""Numbers that the kernels know types of elements by."""

LEVELS = ("generic", "avx2", "avx512")
"""Instruction sets that the kernels are compiled for, by their number."""


class LIFStruct(ctypes.Structure):
    """``struct LIF`` of csrc/native.cpp."""

    _fields_: ClassVar = [
        *((name, c_double) for name in ("tau", "threshold", "rest", "alpha")),
        *((name, c_int32) for name in ("soft_reset", "decay_input", "detach_reset", "surrogate")),
    ]


class NormStruct(ctypes.Structure):
    """``struct Norm`` of csrc/native.cpp."""

    _fields_: ClassVar = [
        *((name, c_void_p) for name in ("scale", "shift", "mean")),
        ("channels", c_int64),
    ]


class ConvStruct(ctypes.Structure):
    """``struct Conv`` of csrc/native.cpp."""

    _fields_: ClassVar = [
        (name, c_int64)
        for name in (
            *("images", "height", "width", "channels"),
            *("out_height", "out_width", "out_channels"),
            *("kernel_height", "kernel_width", "stride_height", "stride_width"),
            *("pad_height", "pad_width", "table"),
        )
    ]


VERSION = 5
"""What ``mmspike_version()`` of csrc/native.cpp gives: a library of another one is not called."""

_LIF, _NORM, _CONV = (POINTER(struct) for struct in (LIFStruct, NormStruct, ConvStruct))
_STRIDES = POINTER(c_int64)
_PTR, _N = c_void_p, c_int64

SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "version": (c_int, []),
    "level": (c_int, []),
    "set_level": (c_int, [c_int]),
    "lif_forward": (_N, [c_int, _PTR, _PTR, c_int, _N, _N, _N, _NORM, _LIF, c_int]),
    "lif_backward": (None, [c_int, _PTR, _PTR, _PTR, *[_N] * 4, _NORM, _PTR, _LIF, c_int]),
    "norm_backward": (None, [*[_PTR] * 7, _N, _N, c_int]),
    "norm_sums": (None, [*[_PTR] * 4, _N, _N, c_int]),
    "unpack": (None, [_PTR, _PTR, _N, _N, c_int]),
    "laid_out_size": (_N, [_CONV]),
    "lay_out_weight": (None, [_PTR, _STRIDES, _PTR, _CONV, c_int]),
    "conv_forward": (_N, [*[_PTR] * 4, _N, _CONV, c_int]),
    "conv_fire": (_N, [*[_PTR] * 4, _N, _LIF, _CONV, c_int]),
    "conv_grad_weight": (None, [*[_PTR] * 3, _N, _CONV, c_int]),
    "conv_grad_input": (None, [_PTR, _PTR, _STRIDES, _PTR, _CONV, c_int]),
    "depthwise_forward": (None, [*[_PTR] * 3, _N, _CONV, c_int]),
    "depthwise_grad_weight": (None, [*[_PTR] * 3, _N, _CONV, c_int]),
    "attention": (None, [_PTR, _PTR, *[_N] * 5, c_float, c_int]),
}
"""Result and arguments of every function ``mmspike_<name>`` of csrc/native.cpp."""


@lru_cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; ``None`` where there are none, or, with a warning, none that fit.

    The environment variable ``MMSPIKE_KERNELS`` names another file than the installed one.

    Raises:
        FileNotFoundError: If ``MMSPIKE_KERNELS`` names no file.
    """
    path = _path()
    if path is None:
        return None
    try:
        lib = ctypes.CDLL(str(path))  # torch, imported above, has loaded its OpenMP by now
        version = lib.mmspike_version()
    except (OSError, AttributeError) as error:
        version = f"one that cannot be loaded ({error})"
    if version != VERSION:
        text = f"{path}: kernels of version {VERSION} are wanted, found {version}; install mmspike "
        print_log(text + "again", "current", level=logging.WARNING)
        return None
    for name, (result, arguments) in SIGNATURES.items():
        kernel = getattr(lib, f"mmspike_{name}")
        kernel.restype, kernel.argtypes = result, arguments
    return lib


def _path() -> Path | None:
    named = os.environ.get("MMSPIKE_KERNELS")
    if named:
        if not Path(named).is_file():
            raise FileNotFoundError(f"MMSPIKE_KERNELS={named} is no file; expected a library")
        return Path(named)
    paths = (Path(__file__).with_name(f"_kernels{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


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
    """Run a kernel, ``mmspike_<name>``, on torch's number of threads.

    torch's profiler lists it as ``mmspike::<name>``.

    Raises:
        RuntimeError: If the kernels were not compiled.
    """
    kernel = getattr(loaded(), f"mmspike_{name}")
    if not torch.autograd._profiler_enabled():
        return kernel(*args, torch.get_num_threads())
    with torch.profiler.record_function(f"mmspike::{name}"):
        return kernel(*args, torch.get_num_threads())
