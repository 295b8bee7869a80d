"""Where the tests of Triton kernels run: on a GPU, or interpreted on a CPU.

``TRITON_INTERPRET=1 python -m pytest tests/fused/cuda`` interprets; Triton reads the variable when
it is imported. With neither, the engine is tested on a stand-in for the kernels.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch

INTERPRETED = find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
ENGINE_MARKS = [pytest.mark.gpu] if DEVICE == "cuda" else []
STANDS_IN = DEVICE == "cpu" and not INTERPRETED
MARKS = [
    *ENGINE_MARKS,
    pytest.mark.skipif(STANDS_IN, reason="needs a CUDA device, or Triton and TRITON_INTERPRET=1"),
]

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, *HALVES)
TOLERANCE = {torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def maps(t, b, c, h, w, dtype, last, scale=2.0, shift=0.7):
    """Maps ``[T, B, C, H, W]`` whose channels have different spreads."""
    x = torch.randn(t * b, c, h, w) * scale + shift
    x = (x * (1 + torch.arange(c).view(1, -1, 1, 1) / c)).to(dtype).to(DEVICE)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.unflatten(0, (t, b)) if t > 1 else x.unsqueeze(0)


def far(a, b):
    """The distance of two tensors, relative to the second."""
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm().clamp(min=1e-30)).item()


def check_spikes(a, b, values=(0.0, 1.0)):
    """Count spikes that differ: where a potential is within a rounding of a threshold."""
    wrong = (a.float() != b.to(a.dtype).float()).sum().item()
    assert set(a.unique().tolist()) <= set(torch.tensor(values).to(a.dtype).tolist())
    assert 0.01 < b.float().mean() < 0.99 * values[-1]
    exact = DEVICE == "cpu" and a.dtype == torch.float32
    assert wrong <= (0 if exact else 1 + 1e-3 * a.numel()), f"{wrong} of {a.numel()} differ"
    return wrong
