from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from mmspike.fused import checkpointed
from mmspike.fused.memory import spikes_saved_as_bytes
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.conv import SpikeLayer, build_norm, spike_conv
from mmspike.neurons import LIF

BN = dict(type="BN")
EAGER = dict(type="mmspike.LIF", backend="eager")  # whose spikes are floats


def gradients(model, x, plain, monkeypatch):
    if plain:
        monkeypatch.setattr(
            "mmspike.fused.memory.spikes_saved_as_bytes",
            lambda *_: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
        )
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    return [x.grad, *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("channels_last", [True, False])
def test_gradients_are_the_same(dtype, time_steps, channels_last, monkeypatch):
    model = nn.Sequential(
        spike_conv(4, 6, 3, norm_cfg=BN, neuron_cfg=EAGER),
        SpikeLayer(
            nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 8, 1)),
            build_norm(BN, 8),
            EAGER,
        ),
        SpikeDrivenSelfAttention(8, 2, BN, EAGER, dict(v_threshold=0.5), init_pixels=30),
    ).to(dtype)
    x = (3 * torch.randn(time_steps, 2, 4, 6, 5)).to(dtype)
    if channels_last:
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    packed = gradients(model, x, False, monkeypatch)
    model.load_state_dict(state)
    plain = gradients(model, x, True, monkeypatch)
    for a, b in zip(packed, plain, strict=True):
        assert torch.equal(a, b)


def test_bytes_are_kept_and_shared():
    neuron, layers = LIF(), nn.ModuleList(nn.Conv2d(4, 6, 3, padding=1) for _ in range(3))
    s = neuron(3 * torch.randn(1, 2, 4, 6, 5)).flatten(0, 1)
    kept = []
    with spikes_saved_as_bytes(s, 1):
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
        for layer in layers:
            layer(s)
        kept = [hooks[0](s), hooks[0](s), hooks[0](layers[0].weight)]
    assert kept[0].dtype == torch.uint8
    assert kept[0] is kept[1]
    assert kept[2] is layers[0].weight
    assert torch.equal(hooks[1](kept[0]), s)


@pytest.mark.parametrize("levels", [256, 1])
def test_what_does_not_fit_into_bytes_stays(levels):
    s = torch.full((2, 3), 300.0 if levels == 256 else 1.0, requires_grad=True) * 1
    weight = torch.ones(3, 4, requires_grad=True)
    with spikes_saved_as_bytes(s, levels):
        y = s @ weight
    y.sum().backward()
    assert torch.equal(weight.grad, s.detach().sum(0)[:, None].expand(3, 4))


def test_hooks_from_outside_see_everything():
    layer = spike_conv(4, 6, 3, norm_cfg=BN, neuron_cfg=EAGER)
    x = 3 * torch.randn(1, 2, 4, 6, 5, requires_grad=True)

    def count(outer: bool) -> list[torch.Tensor]:
        seen = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t)
        with hooks if outer else nullcontext():
            layer(x)
        return seen

    seen = count(outer=True)
    assert any(t.shape == (2, 4, 6, 5) for t in seen)  # the spikes
    assert not any(t.dtype == torch.uint8 for t in seen)
    assert count(outer=False) == []


def test_checkpointing_keeps_no_activations():
    layer = nn.Sequential(*(spike_conv(4, 4, 3, norm_cfg=BN) for _ in range(3)))
    x = (3 * torch.randn(1, 2, 4, 16, 16)).requires_grad_()
    alive = []

    def remember(module, args, out):
        alive.append(weakref.ref(out))

    for module in layer.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | LIF):
            module.register_forward_hook(remember)
    y = checkpointed(layer, x)
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 1  # the output
    y.sum().backward()
    assert x.grad is not None
