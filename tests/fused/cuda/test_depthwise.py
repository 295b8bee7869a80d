"""The depthwise kernels against torch's in float64."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F

from tests.fused.cuda.helpers import DEVICE, MARKS, far

pytest.importorskip("triton")
depthwise = import_module("mmspike.fused.cuda.depthwise")
pytestmark = MARKS

CASES = [  # N, C, H, W, kernel, padding, type
    (2, 64, 9, 11, 7, 3, torch.float32),
    (1, 24, 8, 16, 7, 3, torch.float16),
    (2, 40, 5, 6, 3, 1, torch.float32),
    (2, 72, 10, 7, 3, 0, torch.float16),
    (1, 17, 13, 9, 3, 1, torch.bfloat16),
    (3, 128, 3, 4, 7, 3, torch.bfloat16),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_depthwise(case):
    n, c, h, w, k, pad, dtype = case
    x = torch.randn(n, c, h, w, device=DEVICE).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(c, 1, k, k, device=DEVICE) / k
    ref_x = x.double().requires_grad_()
    want = F.conv2d(ref_x, weight.to(dtype).double(), padding=pad, groups=c)
    g = torch.randn_like(want).to(dtype).contiguous(memory_format=torch.channels_last)
    (grad_x,) = torch.autograd.grad(want, ref_x, g.double())
    rows = depthwise.rows_of(weight, dtype)
    tolerance = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    for _ in range(2):  # the short way, too
        out = depthwise.forward(x, rows, pad)
        assert out.dtype == dtype
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert far(out, want) < tolerance
        assert far(depthwise.grad_input(g, rows, pad), grad_x) < tolerance
