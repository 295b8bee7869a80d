"""Training in half precision: under autocast, on the CPU and on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmspike.backbones import MetaSpikeFormer
from mmspike.necks import SpikeFPN
from mmspike.neurons import LIF
from tests.conftest import without_tf32

HALVES = [torch.bfloat16, torch.float16]


def build(time_steps, device="cpu"):
    arch = dict(embed_dims=[16, 16, 32, 32], num_heads=1)
    backbone = MetaSpikeFormer(arch=arch, time_steps=time_steps, attn_init_size=(64, 64))
    return nn.Sequential(backbone, SpikeFPN([16, 16, 32, 32], 16, 5)).to(device).train()


def loss_of(model, img, dtype):
    """How far the levels' means are from 1: a loss that a few steps reduce."""
    with torch.autocast(img.device.type, dtype, enabled=dtype != torch.float32):
        ys = model(img)
        return sum((y.mean((0, 2, 3, 4)).float() - 1).square().mean() for y in ys)


def check_training(device, dtype, time_steps):
    model = build(time_steps, device)
    img = torch.rand(2, 3, 64, 64, device=device)
    with without_tf32():
        expected = loss_of(model, img, torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10, enabled=dtype == torch.float16)
    losses = []
    for step in range(8):
        loss = loss_of(model, img, dtype)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.dtype == torch.float32, name
            assert p.grad.isfinite().all(), (step, name)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(expected.item(), rel=0.1)  # some spikes flip
    assert losses[-1] < 0.95 * losses[0]
    assert all(b.dtype != dtype for b in model.buffers())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("time_steps", [1, 2])
def test_training(dtype, time_steps):
    check_training("cpu", dtype, time_steps)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("time_steps", [1, 4])
def test_training_on_a_gpu(dtype, time_steps):
    check_training("cuda", dtype, time_steps)


def inputs_at_the_threshold(dtype):
    """Steps whose potential reaches 1 by less than half precision resolves, or stays as far below.

    With tau 2, h = (x1 / 2 + x2) / 2, to be compared with 1. In float32 that is exact.
    """
    x1 = torch.tensor([1.0, 1.0, 1.0 + 2**-7, 1.0 - 2**-8, 1.0 + 2**-6])
    x2 = torch.tensor([1.5, 1.5 - 2**-7, 1.5 - 2**-7, 1.5, 1.5 - 2**-7])
    x = torch.stack([x1, x2])
    assert torch.equal(x.to(dtype).float(), x)
    return x


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("backend", ["auto", "torch", "eager"])
def test_the_potential_is_float32(dtype, backend):
    x = inputs_at_the_threshold(dtype)
    expected = (x[0] / 2 + x[1]) / 2 >= 1
    with torch.autocast("cpu", dtype):
        spikes = LIF(backend=backend)(x.to(dtype))
    assert spikes.dtype == dtype
    assert spikes[0].sum() == 0
    assert torch.equal(spikes[1].bool(), expected)
    if dtype == torch.bfloat16:  # which would fire otherwise, or this test says nothing
        half = x.to(dtype)
        assert not torch.equal((half[0] / 2 + half[1]) / 2 >= 1, expected)
