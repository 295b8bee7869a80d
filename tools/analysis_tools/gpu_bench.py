"""Sizes of the GPU's benchmarks, and how they time, guard and note what they measure."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from timing import time_call

TINY = {"embed_dims": [16, 16, 24, 32], "num_heads": 4, "depths": (1, 1, 1, 1, 1)}


class Bench:
    """Sizes, and what is measured.

    Args:
        rows: File that gets a line of JSON per measurement.
        dry: Whether sizes are tiny, on a CPU.
    """

    def __init__(self, rows: Path, dry: bool) -> None:
        self.rows, self.dry = rows, dry
        self.device = "cpu" if dry else "cuda"
        self.dtype = torch.bfloat16 if dry else torch.float16
        self.arch, self.images = (TINY, 1) if dry else ("15M", 8)
        self.size = (32, 32) if dry else (512, 512)

    def note(self, section: str, **row: Any) -> None:
        """Print a measurement and write it down."""
        row = {"section": section, **row}
        with self.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print("  " + ", ".join(f"{k} {v}" for k, v in row.items() if k != "kernels"), flush=True)
        for name, ms, count in row.get("kernels", ()):
            print(f"    {ms:8.3f} ms {count:5d} x {name}", flush=True)

    @contextmanager
    def guarded(self, section: str, what: str) -> Iterator[None]:
        """Note what fails inside, and go on."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.note(section, what=what, error=f"{type(error).__name__}: {str(error)[:300]}")
        if not self.dry:
            torch.cuda.empty_cache()

    def time(self, run: Callable[[], object], seconds: float = 1.0) -> dict[str, float]:
        """Median milliseconds of some calls, after four; MiB that a call adds at its peak."""
        for _ in range(1 if self.dry else 4):
            one = time_call(run, self.device)
        rounds = 2 if self.dry else int(max(5, min(30, seconds / one)))
        ms = 1e3 * median(time_call(run, self.device) for _ in range(rounds))
        return {"ms": round(ms, 3), **self.memory(run)}

    def memory(self, run: Callable[[], object]) -> dict[str, float]:
        """MiB that a call adds at its peak; nothing on a CPU."""
        if self.dry:
            return {}
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return {"mib": round((torch.cuda.max_memory_allocated() - before) / 2**20)}

    def autocast(self) -> torch.autocast:
        """Mixed precision."""
        return torch.autocast(self.device, self.dtype)
