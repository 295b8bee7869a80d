"""Depthwise convolutions of stride 1 on maps with their channels last, and their inputs' gradient.

The weights' gradient is cuDNN's, which is as fast.
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

COLUMNS, ELEMENTS = 8, 512
"""Columns and elements of a program: four elements for each of 128 threads."""

MOST_CHANNELS = 64
"""Channels of a program."""


@lru_cache(maxsize=1024)
def _launch(
    shape: torch.Size, kernel: int, padding: int, flip: bool, *_: Any
) -> tuple[Launch, tuple[int, int, int, int]]:
    """The kernel for maps of one size, type and device, and the shape of what it gives."""
    n, c, rows, columns = shape
    out_rows, out_columns = (size + 2 * padding - kernel + 1 for size in (rows, columns))
    block_c = min(MOST_CHANNELS, triton.next_power_of_2(c))
    in_program = ELEMENTS // block_c
    per_row = triton.cdiv(out_columns, COLUMNS)
    groups = n * out_rows * per_row
    vec = math.gcd(c, 8)
    constants = {"PAD": padding, "FLIP": flip, "K": kernel, "OW": COLUMNS, "VEC": vec}
    launch = Launch(
        depthwise_kernels.convolve,
        (triton.cdiv(groups, in_program), triton.cdiv(c, block_c)),
        (groups, out_rows, out_columns, rows, columns, per_row, c // vec),
        {**constants, "GROUPS": in_program, "BLOCK_C": block_c},
    )
    return launch, (n, c, out_rows, out_columns)


def rows_of(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """``[C, 1, K, K]`` to ``[K * K, C]``, in one copy."""
    rows = weight.new_empty(weight[0].numel(), weight.size(0), dtype=dtype)
    return rows.copy_(weight.flatten(1).t())


def forward(x: Tensor, rows: Tensor, padding: int) -> Tensor:
    """Convolve.

    Args:
        x: ``[N, C, H, W]``, in channels-last memory.
        rows: The weights, see :func:`rows_of`, typed like ``x``.
        padding: Pixels of zeros around the map.

    Returns:
        ``[N, C, H', W']``, typed like ``x``, in channels-last memory.
    """
    return _convolve(x, rows, padding, flip=False)


def grad_input(grad_out: Tensor, rows: Tensor, padding: int) -> Tensor:
    """The gradient of the map from that of the output, both in channels-last memory."""
    return _convolve(grad_out, rows, math.isqrt(rows.size(0)) - 1 - padding, flip=True)


def _convolve(x: Tensor, rows: Tensor, padding: int, flip: bool) -> Tensor:
    size = math.isqrt(rows.size(0))
    launch, out_shape = _launch(x.shape, size, padding, flip, x.dtype, x.device)
    out = torch.empty(out_shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    launch(x, rows, out)
    return out
