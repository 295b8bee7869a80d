"""Depthwise convolutions of stride 1 on maps with their channels last: forward and gradients.

A border may have a value per channel (``RepConv`` pads with what its norm makes of 0), which saves
the padded copy.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from mmspike.fused.cuda import depthwise_kernels
from mmspike.neurons.kernels.triton_launch import Launch

FORWARD = (8, 512)
"""Columns and elements of a program: four elements for each of 128 threads."""

GRAD_WEIGHT = {3: (4, 256), 7: (8, 256)}
"""The same for the gradient of the weights, by size of the kernel."""

GRAD_PROGRAMS = 1056
"""Programs that sum up the gradient of the weights: eight for each multiprocessor of an H200."""


class _Launches:
    """The kernels for maps of one size, type and device."""

    def __init__(self, shape: torch.Size, kernel: int, pad: int, border: bool) -> None:
        n, c, rows, columns = shape
        out_rows, out_columns = (size + 2 * pad - kernel + 1 for size in (rows, columns))
        self.out_shape = (n, c, out_rows, out_columns)
        vec = math.gcd(c, 8)
        block_c = min(64, triton.next_power_of_2(c))
        common = {"K": kernel, "VEC": vec, "BLOCK_C": block_c}
        tiles_c = triton.cdiv(c, block_c)
        ow, elements = FORWARD
        self.forward = self._convolution(
            shape, self.out_shape, pad, False, border, ow, elements, common
        )
        self.grad_input = self._convolution(
            self.out_shape, shape, kernel - 1 - pad, True, False, ow, elements, common
        )
        ow, elements = GRAD_WEIGHT[kernel]
        in_program = elements // block_c
        per_row = triton.cdiv(out_columns, ow)
        groups = n * out_rows * per_row
        self.programs = max(
            1, min(max(GRAD_PROGRAMS // tiles_c, 1), triton.cdiv(groups, 4 * in_program))
        )
        sizes = (groups, out_rows, out_columns, rows, columns, per_row, c // vec, self.programs)
        self.grad_weight = Launch(
            depthwise_kernels.grad_weight,
            (self.programs, tiles_c),
            sizes,
            {**common, "PAD": pad, "HAS_BORDER": border, "OW": ow, "GROUPS": in_program},
        )
        self.add_up = Launch(
            depthwise_kernels.add_up,
            (triton.cdiv(c, 64), kernel * kernel),
            (self.programs, c),
            {"TAPS": kernel * kernel, "ROWS": 32, "BLOCK_C": 64},
        )

    @staticmethod
    def _convolution(
        shape: Any, out_shape: Any, pad: int, flip: bool, border: bool, ow: int, elements: int,
        common: dict[str, Any],
    ) -> Launch:  # fmt: skip
        n, c, out_rows, out_columns = out_shape
        in_program = elements // common["BLOCK_C"]
        per_row = triton.cdiv(out_columns, ow)
        groups = n * out_rows * per_row
        sizes = (groups, out_rows, out_columns, *shape[2:], per_row, c // common["VEC"])
        return Launch(
            depthwise_kernels.convolve,
            (triton.cdiv(groups, in_program), triton.cdiv(c, common["BLOCK_C"])),
            sizes,
            {**common, "PAD": pad, "FLIP": flip, "HAS_BORDER": border, "OW": ow,
             "GROUPS": in_program},
        )  # fmt: skip


@lru_cache(maxsize=1024)
def _launches(shape: torch.Size, kernel: int, pad: int, border: bool, *_: Any) -> _Launches:
    """One for each type and device."""
    return _Launches(shape, kernel, pad, border)


def rows_of(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """``[C, 1, K, K]`` to ``[K * K, C]``, in one copy."""
    rows = weight.new_empty(weight[0].numel(), weight.size(0), dtype=dtype)
    return rows.copy_(weight.flatten(1).t())


def forward(x: Tensor, rows: Tensor, padding: int, border: Tensor | None = None) -> Tensor:
    """Convolve.

    Args:
        x: ``[N, C, H, W]``, in channels-last memory.
        rows: The weights, see :func:`rows_of`, typed like ``x``.
        padding: Pixels around the map.
        border: ``[C]``, what lies around the map instead of 0.

    Returns:
        ``[N, C, H', W']``, typed like ``x``, in channels-last memory.
    """
    known = _known(x, rows, padding, border)
    out = torch.empty(
        known.out_shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    known.forward(x, rows, x if border is None else border, out)
    return out


def grad_input(grad_out: Tensor, rows: Tensor, padding: int, like: Tensor) -> Tensor:
    """The gradient of the map, shaped and laid out as ``like``."""
    grad_x = torch.empty_like(like, dtype=grad_out.dtype)
    _known(like, rows, padding, None).grad_input(grad_out, rows, grad_out, grad_x)
    return grad_x


def grad_weight(
    x: Tensor, grad_out: Tensor, rows: Tensor, padding: int, border: Tensor | None = None
) -> Tensor:
    """The gradient of the weights, ``[C, 1, K, K]``, float32."""
    known = _known(x, rows, padding, border)
    part = x.new_empty(known.programs, *rows.shape, dtype=torch.float32)
    size = math.isqrt(rows.size(0))
    grad = x.new_empty(rows.size(1), 1, size, size, dtype=torch.float32)
    known.grad_weight(x, grad_out, x if border is None else border, part)
    known.add_up(part, grad)
    return grad


def _known(x: Tensor, rows: Tensor, padding: int, border: Tensor | None) -> _Launches:
    size = math.isqrt(rows.size(0))
    return _launches(x.shape, size, padding, border is not None, x.dtype, x.device)
