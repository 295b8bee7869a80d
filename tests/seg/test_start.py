"""What a training from scratch starts with: gradients of a size that can be trained on."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mmspike import fused
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.conv import SpikeLayer
from mmspike.layers.rep_conv import RepConv
from mmspike.native import library
from mmspike.neurons import LIF
from mmspike.seg import Stretch
from tests.seg.helpers import build, make_batch, read_config

KERNELS = pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")
NUCLEI, SHAPES = "semantic_fpn_metaspike_nuclei.py", "semantic_fpn_metaspike_shapes.py"


def plain(model):
    """Keep the compiled kernels away, as another device does."""
    for m in model.modules():
        if isinstance(m, LIF):
            m.backend = "eager"
    return model


@pytest.mark.parametrize(
    ("config", "size", "batch", "time_steps", "way"),
    [
        *(
            pytest.param(NUCLEI, size, batch, steps, "kernels", marks=KERNELS)
            for size in ((32, 32), (48, 64), (64, 96))
            for batch, steps in ((1, 1), (2, 1), (4, 1), (2, 4))
        ),
        *(
            pytest.param(SHAPES, (32, 32), batch, steps, "kernels", marks=KERNELS)
            for batch, steps in ((1, 1), (2, 1), (2, 4))
        ),
        (NUCLEI, (64, 96), 2, 1, "plain"),
        (SHAPES, (32, 32), 1, 1, "plain"),
        (NUCLEI, (32, 32), 1, 1, "with_cp"),
    ],
)
def test_the_first_gradient_is_of_a_size_to_train_on(config, size, batch, time_steps, way):
    """The attention is silent on maps so small: without a guard, up to 1e37, or NaN."""
    options = {"model.backbone.init_cfg": None, "model.backbone.time_steps": time_steps}
    cfg = read_config(config, **options, **{"model.backbone.with_cp": way == "with_cp"})
    model = build(cfg)
    model.init_weights()
    model = plain(model) if way == "plain" else model
    model.train()
    classes = cfg.model.decode_head.num_classes
    data = make_batch(model, size, num_images=batch, num_classes=classes)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    largest = {n: p.grad.abs().max().item() for n, p in model.named_parameters()}
    assert max(largest.values()) < 1e3, max(largest, key=largest.get)
    assert largest["backbone.stages.0.downsample.layer.weight"] > 0


def repconv(channels=16):
    torch.manual_seed(0)
    return RepConv(channels, dict(type="BN")).train()


def run(conv, backend, x):
    """Gradients of input and parameters, through spikes."""
    layer = SpikeLayer(conv, nn.Identity(), dict(type="mmspike.LIF", backend=backend))
    x = x.clone().requires_grad_()
    with fused.explained(layer) as explanation:
        out = layer(x)
    assert (explanation.plain == {}) == (backend == "native")
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(0)))
    return [x.grad, *(p.grad for p in conv.parameters())]


@pytest.mark.parametrize("backend", [pytest.param("native", marks=KERNELS), "eager"])
@pytest.mark.parametrize("potential", [-1.0, 5.0], ids=["silent", "saturated"])
def test_the_first_norm_passes_nothing_of_constant_spikes(potential, backend):
    layer = repconv()
    grads = run(layer, backend, torch.full((1, 2, 16, 4, 5), potential))
    names = ["input", *(name for name, _ in layer.named_parameters())]
    for name, grad in zip(names, grads, strict=True):
        assert grad is not None, name  # or distributed training waits for it
        if name.startswith(("input", "conv1", "norm1")):
            assert not grad.any(), name
    assert grads[names.index("norm2.bias")].any()


@pytest.mark.parametrize("backend", [pytest.param("native", marks=KERNELS), "eager"])
def test_one_spike_is_enough_for_the_published_gradient(backend, monkeypatch):
    x = torch.full((1, 2, 16, 4, 5), -1.0)
    x[0, 1, 3, 2, 2] = 5.0
    layer = repconv()
    given = run(copy.deepcopy(layer), backend, x)
    rest = RepConv.rest
    monkeypatch.setattr(
        RepConv, "rest", lambda conv, y, norm=fused.call, _=None: rest(conv, y, norm)
    )
    for a, b in zip(given, run(layer, backend, x), strict=True):
        if backend == "native":
            assert torch.equal(a, b)
        else:  # torch.where lays the map out otherwise, and sums round in another order
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())
    assert given[0].any()


def test_evaluation_and_frozen_statistics_keep_their_gradient():
    grads = run(repconv().eval(), "eager", torch.full((1, 2, 16, 4, 5), -1.0))
    assert grads[0].any()


def test_a_silent_attention_under_checkpointing():
    attention = SpikeDrivenSelfAttention(
        16, 4, dict(type="BN"), None, dict(v_threshold=0.5)
    ).train()
    nn.init.constant_(attention.q_norm.bias, -5.0)
    x = torch.randn(1, 2, 16, 3, 4)
    grads = []
    for call in (attention, lambda x: fused.checkpointed(attention, x)):
        x = x.detach().requires_grad_()
        attention.zero_grad()
        call(x).square().sum().backward()
        grads.append([x.grad, *(p.grad for p in attention.parameters())])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().max() < 1e4


def test_is_traced_without_a_break():
    conv = repconv()
    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
    for x, passes in ((torch.zeros(2, 16, 4, 4), False), (torch.rand(2, 16, 4, 4).round(), True)):
        conv.zero_grad()
        compiled(x).square().mul(torch.linspace(0, 1, 4)).sum().backward()
        assert conv.conv1.weight.grad.any() == passes


def test_stretch_takes_constant_images():
    stretch = Stretch(min_value=10, max_value=255)
    blank = np.full((2, 3, 3), 77, np.uint8)
    assert (stretch({"img": blank})["img"] == 10).all()
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    out = stretch({"img": image})["img"]
    assert (out.min(), out.max()) == (10, 255)
    with pytest.raises(ValueError, match=r"image a\.png: not all numbers are finite"):
        stretch({"img": np.where(image == 3, np.nan, image), "img_path": "a.png"})
