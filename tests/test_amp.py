"""Loss and gradients of whole models in half precision."""

from __future__ import annotations

import pytest
import torch

from tests.det import helpers as det
from tests.seg import helpers as seg

ARCH = dict(embed_dims=[16, 16, 32, 32], num_heads=1)


def loss_of(model, data, dtype, device):
    torch.manual_seed(0)  # RoIs are sampled
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        losses = model(**data, mode="loss")
        return model.parse_losses(losses)[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("helpers", [det, seg], ids=["detector", "segmentor"])
def test_loss_and_gradients(helpers, device, dtype):
    options = {
        "model.backbone.arch": ARCH,
        "model.neck.in_channels": ARCH["embed_dims"],
    }
    model = helpers.build(helpers.small_config(2, **options)).to(device).train()
    data = helpers.make_batch(model, (64, 96))
    expected = loss_of(model, data, torch.float32, device).item()
    scale = 2.0**6 if dtype == torch.float16 else 1.0
    loss = loss_of(model, data, dtype, device)
    (loss * scale).backward()
    assert loss.isfinite()
    assert loss.item() == pytest.approx(expected, rel=0.1)
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
