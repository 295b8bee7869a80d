"""What the benchmarks share: interleaved timing, and memory of a process."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch


def time_call(run: Callable[[], object], device: str) -> float:
    """Seconds that a call takes."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleave(runs: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each; every round runs each once, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            elapsed = time_call(run, device)
            if i:
                seconds[name].append(elapsed)
    return {name: median(s) for name, s in seconds.items()}


def keep_memory() -> None:
    """Keep freed memory in the process (glibc): new pages cost more than small kernels."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


def added_memory(run: Callable[[], object], device: str) -> float:
    """MiB by which a call raises the peak of the GPU's memory, or of this process on Linux."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _read_status("VmRSS")
    run()
    return _read_status("VmHWM") - before


def _read_status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(key))) / 1024
