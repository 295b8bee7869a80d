"""The door to fast paths: what goes through it, what does not, and why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmspike import fused
from mmspike.backbones import MetaSpikeFormer
from mmspike.deploy import switch_to_deploy
from mmspike.fused import door, protocols, switch
from mmspike.fused.cuda.engine import CUDAEngine
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.conv import SpikeLayer, build_norm, spike_conv
from mmspike.layers.rep_conv import DepthwisePointwise, RepConv
from mmspike.native import library

pytestmark = pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")

BN = dict(type="BN")
ARCH = dict(embed_dims=[16, 16, 24, 32], num_heads=2)


def potentials(*shape):
    return 3 * torch.randn(*shape)


LAYERS = {
    "conv": lambda **kw: spike_conv(8, 16, 3, norm_cfg=BN, **kw),
    "separable": lambda **kw: SpikeLayer(DepthwisePointwise(8, 16, 7), build_norm(BN, 16), **kw),
    "RepConv": lambda **kw: SpikeLayer(RepConv(8, BN), build_norm(BN, 8), **kw),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("time_steps", [1, 3])
def test_switched_off_gives_the_same(name, training, time_steps):
    layer = LAYERS[name]().train(training)
    x = potentials(time_steps, 2, 8, 9, 10)
    found = []
    for plain in (False, True):
        x = x.detach().requires_grad_()
        layer.zero_grad()
        state = {k: v.clone() for k, v in layer.state_dict().items()}
        with switch.enabled(not plain), fused.explained(layer) as explanation:
            y = layer(x)
        weight = torch.linspace(-1, 1, y.numel()).view_as(y)
        y.backward(weight)
        why = "fast paths are switched off" if plain else None
        assert list(explanation.layers.values()) == [why]
        found.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
        layer.load_state_dict(state)
    size = max(b.abs().max() for b in found[1])  # gradients of scales that the next norm takes out
    for a, b in zip(*found, strict=True):  # again are small differences of large terms
        assert (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-5 * size


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(neuron_cfg=dict(type="ReLU")), "the kernels know LIF, not ReLU"),
        (dict(neuron_cfg=dict(type="IFNode")), "the kernels know LIF, not IFNode"),
        (dict(neuron_cfg=dict(type="mmspike.LIF", backend="eager")), "backend 'eager'"),
        (
            dict(neuron_cfg=dict(type="mmspike.LIF", surrogate=dict(type="Erf"))),
            "do not know the surrogate Erf",
        ),
        (dict(neuron_cfg=False), "there is no neuron before it"),
    ],
    ids=["ReLU", "IFNode", "backend", "surrogate", "no neuron"],
)
def test_reasons_of_neurons(change, reason):
    layer = spike_conv(8, 16, 3, norm_cfg=BN, **change)
    (why,) = fused.explain(layer, potentials(1, 2, 8, 6, 6)).layers.values()
    assert reason in why


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (nn.Conv2d(8, 8, 3, dilation=2), "do not know dilation (2, 2)"),
        (nn.Conv2d(8, 8, 3, padding="same"), "zero padding given in numbers"),
        (nn.Conv2d(8, 8, 3, groups=2), "2 groups of several channels"),
        (nn.Conv2d(8, 8, 5, groups=8, bias=False), "depthwise kernels of (5, 5)"),
        (nn.Conv2d(8, 8, 3, stride=2, groups=8, bias=False), "of stride (2, 2)"),
        (nn.Conv2d(8, 8, 3, groups=8), "depthwise biases"),
        (nn.ConvTranspose2d(8, 8, 2, 2), "do not know ConvTranspose2d"),
        (nn.Sequential(nn.Conv2d(8, 8, 3)), "do not know Sequential"),
    ],
    ids=str,
)
def test_reasons_of_convolutions(conv, reason):
    layer = SpikeLayer(conv, build_norm(BN, 8))
    (why,) = fused.explain(layer, potentials(1, 2, 8, 6, 6)).layers.values()
    assert reason in why


def test_reasons_of_inputs():
    layer = spike_conv(8, 16, 3, norm_cfg=BN)
    x = potentials(1, 2, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert fused.explain(layer, x).plain == {"": "autocast chooses other types"}
    double = spike_conv(8, 16, 3, norm_cfg=BN).double()
    assert "float32, not float64" in fused.explain(double, x.double()).plain[""]
    layer.layer.register_forward_hook(lambda *_: None)
    assert fused.explain(layer, x).plain == {"": "the layer has hooks"}


@pytest.mark.parametrize("deployed", [False, True])
@pytest.mark.parametrize("time_steps", [1, 2])
@torch.no_grad()
def test_all_layers_of_a_backbone_but_the_first_run_fused(deployed, time_steps):
    model = MetaSpikeFormer(arch=ARCH, time_steps=time_steps, attn_init_size=(64, 64)).eval()
    if deployed:
        switch_to_deploy(model)
    report = fused.explain(model, torch.rand(1, 3, 64, 64))
    assert list(report.plain) == ["stages.0.downsample"]
    # down 5, SepConv and MLP 2 each in 4 blocks, attention 4 (deployed 2) and MLP 2 in 8 blocks
    assert len(report.layers) == 5 + 4 * 4 + 8 * (4 if deployed else 6)
    assert str(report) == (
        f"fused: {len(report.fused)} of {len(report.layers)} layers; "
        "1 plain: there is no neuron before it"
    )
    assert "stages.0.downsample" in report.table()


def test_a_chain_calls_layers_that_have_hooks():
    mlp = MetaSpikeFormer(arch=ARCH).stages[0].blocks[0].mlp
    called = []
    mlp[1].register_forward_pre_hook(lambda module, args: called.append(args[0].dtype))
    report = fused.explain(mlp, potentials(1, 2, 8, 6, 6))
    assert called == [torch.float32]
    assert list(report.layers.values()) == [None, None]  # one by one, each fused in itself


def test_the_environment_switches_off(monkeypatch):
    layer, x = spike_conv(8, 16, 3, norm_cfg=BN), potentials(1, 2, 8, 6, 6)
    monkeypatch.setenv("MMSPIKE_FUSED", "0")
    assert fused.explain(layer, x).plain == {"": "fast paths are switched off"}
    monkeypatch.setenv("MMSPIKE_FUSED", "off")
    with pytest.raises(ValueError, match="MMSPIKE_FUSED must be 0 or 1, got 'off'"):
        layer(x)


def test_checkpointing_computes_anew_by_the_path_that_was_taken():
    block = MetaSpikeFormer(arch=ARCH).stages[0].blocks[0]
    x = potentials(1, 2, 8, 6, 6).requires_grad_()
    with fused.disabled():
        y = fused.checkpointed(block, x)
    with fused.explained(block) as explanation:
        y.sum().backward()
    assert set(explanation.layers.values()) == {"fast paths are switched off"}


def test_what_has_a_first_layer_is_known_by_its_type():
    assert isinstance(RepConv(8, BN), protocols.SplitLayer)
    assert isinstance(DepthwisePointwise(8, 8, 7), protocols.SplitLayer)
    assert not isinstance(nn.Conv2d(8, 8, 3), protocols.SplitLayer)
    assert not isinstance(nn.Sequential(nn.Conv2d(8, 8, 3)), protocols.SplitLayer)


def test_an_attention_asks_once(monkeypatch):
    attention = SpikeDrivenSelfAttention(8, 2, BN, None, dict(v_threshold=0.5), init_pixels=36)
    asked, choose = [], door._choose
    monkeypatch.setattr(door, "_choose", lambda *args: asked.append(args) or choose(*args))
    attention(potentials(2, 1, 8, 6, 6))
    assert len(asked) == 1


def test_the_engine_for_gpus_runs_only_where_it_is_asked_for(monkeypatch):
    engine, x = CUDAEngine(), potentials(1, 2, 8, 6, 6)
    assert "MMSPIKE_FUSED_CUDA=1 switches it on" in engine.why_not(x)
    monkeypatch.setenv("MMSPIKE_FUSED_CUDA", "1")
    assert "switches it on" not in (engine.why_not(x) or "")
    monkeypatch.setenv("MMSPIKE_FUSED_CUDA", "yes")
    with pytest.raises(ValueError, match="MMSPIKE_FUSED_CUDA must be 0 or 1, got 'yes'"):
        engine.why_not(x)
