"""Loss and gradients of a whole model in half precision."""

from __future__ import annotations

import pytest
import torch

from tests.seg.helpers import build, make_batch, small_config

ARCH = dict(embed_dims=[16, 16, 32, 32], num_heads=1)


def loss_of(model, data, dtype, device):
    torch.manual_seed(0)  # RoIs are sampled
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        losses = model(**data, mode="loss")
        return model.parse_losses(losses)[0]


def check_loss_and_gradients(device, dtype):
    options = {
        "model.backbone.arch": ARCH,
        "model.neck.in_channels": ARCH["embed_dims"],
    }
    model = build(small_config(2, **options)).to(device).train()
    data = make_batch(model, (64, 96))
    expected = loss_of(model, data, torch.float32, device).item()
    scale = 2.0**6 if dtype == torch.float16 else 1.0
    loss = loss_of(model, data, dtype, device)
    (loss * scale).backward()
    assert loss.isfinite()
    assert loss.item() == pytest.approx(expected, rel=0.1)
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_loss_and_gradients(dtype):
    check_loss_and_gradients("cpu", dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_loss_and_gradients_on_a_gpu(dtype):
    check_loss_and_gradients("cuda", dtype)
