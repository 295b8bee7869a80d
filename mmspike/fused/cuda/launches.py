"""Launches of the kernels of norm and neuron, looked up once for a kind of map."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import triton

from mmspike.fused.cuda import backward, fire, statistics
from mmspike.fused.cuda.tiles import Layout, Tiling, tiling
from mmspike.neurons.kernels.common import IntegerParameters, LIFParameters
from mmspike.neurons.kernels.triton_functions import slope_constants, step_constants
from mmspike.neurons.kernels.triton_launch import Launch

SUM_PROGRAMS, GRAD_PROGRAMS = 264, 660
"""Programs that sum up over the pixels of a layer, forward and backward: two and five for each
multiprocessor of an H100 or H200. Constants, not the device's number, so that sums have one order
everywhere."""

GROUP = 32
"""Programs whose sums the last of them adds up; the last of these adds up what groups gave."""

SUM_ELEMENTS, FIRE_ELEMENTS, GRAD_ELEMENTS = 2048, 1024, 1024
"""Elements of a tile: of statistics, of spikes and of gradients; the last keep the potentials of
all steps in registers, and are smaller for more than 2 of them."""

SUM_WARPS, FIRE_WARPS, GRAD_WARPS = 8, 4, 4
"""Warps of such a tile."""

IN_FLIGHT = 4
"""Tiles that a program which sums up reads at once."""

NOTHING, BIAS, NORM = range(3)
"""What is done to a map before the neuron reads it."""


class Launches:
    """The kernels for maps of one layout, type and device, on one stream at a time.

    Programs count one another in memory that launches share.

    Args:
        p: The neuron's parameters, a LIF's or an integer LIF's.
        layout: How the maps lie in memory.
        dtype: Their type.
        device: Theirs.
    """

    def __init__(
        self,
        p: LIFParameters | IntegerParameters,
        layout: Layout,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.layout, self.device = layout, device
        self.counts = isinstance(p, IntegerParameters)
        self._constants = {"TIME_STEPS": layout.time_steps, **step_constants(p)}
        self._slope = slope_constants(p)
        self._rounded = dtype != torch.float32
        self._sums = tiling(layout, SUM_ELEMENTS)
        self._pixelwise = tiling(layout, FIRE_ELEMENTS)
        fewer = 1 if layout.time_steps <= 2 else 2 if layout.time_steps <= 8 else 4
        self._potentials = tiling(layout, GRAD_ELEMENTS // fewer)
        self._unroll = max(1, IN_FLIGHT // layout.time_steps)
        self._programs = self._programs_of(self._sums, SUM_PROGRAMS)
        self._grad_programs = self._programs_of(self._potentials, GRAD_PROGRAMS)
        groups = [triton.cdiv(n, GROUP) for n in (self._programs, self._grad_programs)]
        self.parts = self._programs + groups[0]
        self.grad_parts = self._grad_programs + groups[1]
        tiles = max(self._sums.channel_tiles, self._potentials.channel_tiles)
        self.counter = torch.zeros(tiles * (max(groups) + 1), dtype=torch.int32, device=device)
        self._cache: dict[Any, Launch] = {}

    def _programs_of(self, tiles: Tiling, most: int) -> int:
        most = max(most // tiles.channel_tiles, 16)
        return max(1, min(most, triton.cdiv(tiles.chunks, self._unroll)))

    def _get(self, make: Callable[..., Launch], *args: Any) -> Launch:
        key = (make.__name__, *args)
        launch = self._cache.get(key)
        if launch is None:
            launch = self._cache[key] = make(*args)
        return launch

    def statistics(self, merge_only: bool) -> Launch:
        """Kernel of the batch's statistics; of nothing but them, to be merged with others."""
        return self._get(self._statistics, merge_only)

    def _statistics(self, merge_only: bool) -> Launch:
        tiles, layout = self._sums, self.layout
        given = {
            "TIME_STEPS": layout.time_steps,
            "UNROLL": self._unroll,
            "GROUP": GROUP,
            "ROWS": _rows(tiles, SUM_WARPS),
            "MERGE_ONLY": merge_only,
            **tiles.constants,
        }
        grid = (self._programs, tiles.channel_tiles)
        sizes = (tiles.units, self._programs, *_sizes(tiles))
        return Launch(statistics.batch_statistics, grid, sizes, given, num_warps=SUM_WARPS)

    def finish(self, parts: int) -> Launch:
        """Kernel that merges the statistics of processes."""
        return self._get(self._finish, parts)

    def _finish(self, parts: int) -> Launch:
        channels = self.layout.channels
        given = {"ROWS": 16, "MERGE_ONLY": False, "BLOCK_C": 64}
        grid = (triton.cdiv(channels, 64),)
        return Launch(statistics.finish_statistics, grid, (channels, parts), given)

    def running(self) -> Launch:
        """Kernel of a norm's numbers in evaluation."""
        return self._get(self._running)

    def _running(self) -> Launch:
        channels = self.layout.channels
        grid = (triton.cdiv(channels, 128),)
        return Launch(statistics.running_statistics, grid, (channels,), {"BLOCK_C": 128})

    def fire(self, before: int, to: torch.dtype | None, bits: bool, numbers: torch.dtype) -> Launch:
        """Kernel that writes spikes.

        Args:
            before: ``NOTHING``, ``BIAS`` or ``NORM``.
            to: Type of the spikes; ``None`` writes none.
            bits: Whether they are written as bits too, or integers as bytes.
            numbers: Type of bias or scale.
        """
        return self._get(self._fire, before, to, bits, numbers)

    def _fire(self, before: int, to: torch.dtype | None, bits: bool, *_: torch.dtype) -> Launch:
        tiles, layout = self._pixelwise, self.layout
        if bits and not self.counts and not layout.takes_bits:
            raise ValueError("spikes as bits need the channels last, a multiple of 8 of them")
        given = {
            **self._constants,
            "NORM": before,
            "ROUNDED": self._rounded,
            "SPIKES": to is not None,
            "BITS": bits,
            **tiles.constants,
        }
        grid = (tiles.chunks, tiles.channel_tiles)
        sizes = (tiles.units, *_sizes(tiles))
        return Launch(fire.fire, grid, sizes, given, num_warps=FIRE_WARPS)

    def backward(
        self, before: int, sums: bool, write: bool, centred: bool, merge: bool, grad: torch.dtype
    ) -> Launch:
        """Kernel of the backward pass; what it does is told in ``backward.py``.

        Args:
            before: ``NOTHING`` or ``NORM``.
            sums: Whether it sums up over pixels.
            write: Whether it writes the gradient.
            centred: Whether the norm's statistics are those of the batch.
            merge: Whether the sums are to be added up over processes.
            grad: Type of the spikes' gradient.
        """
        return self._get(self._backward, before, sums, write, centred, merge, grad)

    def _backward(
        self, before: int, sums: bool, write: bool, centred: bool, merge: bool, *_: torch.dtype
    ) -> Launch:
        tiles = self._potentials
        programs = self._grad_programs if sums else tiles.chunks
        given = {
            **self._constants,
            **self._slope,
            "UNROLL": self._unroll if sums else 1,
            "GROUP": GROUP,
            "ROWS": _rows(tiles, GRAD_WARPS),
            "NORM": before,
            "ROUNDED": self._rounded,
            "SUMS": sums,
            "WRITE": write,
            "CENTRED": centred,
            "MERGE_ONLY": merge,
            **tiles.constants,
        }
        sizes = (tiles.units, programs, *_sizes(tiles))
        grid = (programs, tiles.channel_tiles)
        return Launch(backward.backward, grid, sizes, given, num_warps=GRAD_WARPS)

    def slopes(self) -> Launch:
        """Kernel of the slopes from sums over processes."""
        return self._get(self._slopes)

    def _slopes(self) -> Launch:
        channels = self.layout.channels
        grid = (triton.cdiv(channels, 128),)
        return Launch(backward.slopes_of, grid, (channels,), {"BLOCK_C": 128})


UNPACKED = 256
"""Bytes of spikes that a program turns into numbers."""


@lru_cache(maxsize=1024)
def unpacking(size: int, *_: Any) -> Launch:
    """Kernel that turns so many bytes into spikes; one for each type and device."""
    return Launch(fire.unpack, (triton.cdiv(size, UNPACKED),), (size,), {"BLOCK": UNPACKED})


def _rows(tiles: Tiling, warps: int) -> int:
    return max(1, min(GROUP, 16 * 32 * warps // tiles.constants["BLOCK_C"]))


def _sizes(tiles: Tiling) -> tuple[int, ...]:
    return tiles.chunks, tiles.inner, tiles.outer, tiles.per_image
