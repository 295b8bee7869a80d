"""The engine for GPUs against the plain layers, and what it says of itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmspike import fused
from mmspike.backbones import MetaSpikeFormer
from mmspike.deploy import switch_to_deploy
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.conv import ONE_SIGMA_RATE, SpikeLayer, build_norm, run_layers, spike_conv
from mmspike.layers.efficient_attention import EfficientSpikeAttention
from mmspike.layers.rep_conv import DepthwisePointwise, RepConv
from tests.fused.cuda.helpers import DEVICE, DTYPES, ENGINE_MARKS, STANDS_IN, far, maps

pytestmark = [*ENGINE_MARKS, pytest.mark.usefixtures("cuda_engine")]

BN = dict(type="BN")
NI_LIF = dict(type="mmspike.IntegerLIF", levels=4)
GN = dict(type="GN", num_groups=4)


class Chain(nn.Sequential):
    """Layers that are run together."""

    def forward(self, x):
        return run_layers(self, x)


def separable(norm_cfg=BN, neuron_cfg=None):
    return SpikeLayer(DepthwisePointwise(16, 8, 7), build_norm(norm_cfg, 8), neuron_cfg)


MODELS = {
    "chain": lambda: Chain(spike_conv(8, 16, 1, norm_cfg=BN), separable()),
    "strided, with bias": lambda: Chain(
        spike_conv(8, 16, 3, stride=2, norm_cfg=BN), spike_conv(16, 12, 1, bias=True, norm_cfg=BN)
    ),
    "odd channels": lambda: Chain(
        spike_conv(8, 10, 3, norm_cfg=BN), spike_conv(10, 8, 3, norm_cfg=BN)
    ),
    "group norm": lambda: Chain(spike_conv(8, 16, 3, norm_cfg=GN), separable(GN)),
    "RepConv": lambda: Chain(
        SpikeLayer(RepConv(8, BN), build_norm(BN, 8), init_rate=ONE_SIGMA_RATE),
        spike_conv(8, 8, 1, norm_cfg=BN),
    ),
    "integers": lambda: Chain(
        spike_conv(8, 16, 1, norm_cfg=BN, neuron_cfg=NI_LIF), separable(neuron_cfg=NI_LIF)
    ),
    "attention on integers": lambda: EfficientSpikeAttention(8, 2, BN, NI_LIF, init_pixels=30),
    "attention": lambda: SpikeDrivenSelfAttention(
        8, 2, BN, None, dict(v_threshold=0.5), init_pixels=30
    ),
}


def results(model, x, dtype, plain, training=True):
    """Output and gradients; and what is fused."""
    model.train(training).zero_grad()
    x = x.clone().requires_grad_()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    autocast = torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32)
    with fused.switch.enabled(not plain), fused.explained(model) as explanation, autocast:
        y = model(x)
    y.backward(torch.linspace(-1, 1, y.numel(), device=DEVICE).view_as(y).to(y.dtype))
    found = {"y": y.detach(), "x": x.grad}
    found |= {name: p.grad.clone() for name, p in model.named_parameters()}
    found |= {name: b.clone() for name, b in model.named_buffers() if "tracked" not in name}
    model.load_state_dict(state)
    return found, explanation


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("last", [True, False])
def test_results_are_those_of_the_plain_layers(name, training, time_steps, last):
    model = MODELS[name]().to(DEVICE)
    x = maps(time_steps, 2, 8, 6, 7, torch.float32, last)
    ours, explanation = results(model, x, torch.float32, False, training)
    plain, without = results(model, x, torch.float32, True, training)
    assert explanation.layers
    assert explanation.plain == {}
    assert set(without.layers.values()) == {"fast paths are switched off"}
    size = max(plain[name].abs().max() for name, _ in model.named_parameters())
    for key, a in ours.items():  # gradients of scales that the next norm takes out again are noise
        b = plain[key]
        assert (a - b).abs().max() <= 1e-3 * b.abs().max() + 1e-4 * size, key
        assert far(a, b) < 1e-3 or b.abs().max() < 1e-4 * size, key


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_results_under_autocast(name, dtype):
    """In halves, roundings move spikes: ours as far from those in float32 as the plain layers'."""
    model = MODELS[name]().to(DEVICE)
    x = maps(2, 2, 8, 24, 20, dtype, True)
    ours, explanation = results(model, x, dtype, False)
    plain, _ = results(model, x, dtype, True)
    exact, _ = results(model, x.float(), torch.float32, True)
    assert explanation.plain == {}
    assert ours["y"].dtype == plain["y"].dtype
    for key in ("y", "x"):
        flips = {torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]  # of few spikes in a map
        assert far(ours[key], exact[key]) < 1.5 * far(plain[key], exact[key]) + flips, key
    for key, a in ours.items():
        assert a.dtype == plain[key].dtype, key
        assert a.isfinite().all(), key


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("time_steps", [1, 2])
def test_backbone_deployed(dtype, time_steps):
    arch = dict(embed_dims=[16, 16, 24, 32], num_heads=2)
    model = MetaSpikeFormer(arch=arch, time_steps=time_steps, attn_init_size=(64, 64)).to(DEVICE)
    img = torch.rand(2, 3, 64, 64, device=DEVICE)
    model.train()
    with torch.no_grad():
        model(img)
    switch_to_deploy(model, lay_out=False)
    autocast = torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32)
    with torch.no_grad(), autocast, fused.explained(model) as explanation:
        ys = model(img)
        again = model(img)
        with fused.disabled():
            plain = model(img)
    assert explanation.fused or explanation.plain
    for a, b, c in zip(ys, plain, again, strict=True):
        assert torch.equal(a, c)
        assert far(a, b) < (1e-2 if dtype == torch.float32 else 0.2)
    with torch.no_grad(), autocast:
        report = fused.explain(model, img)
    assert report.plain == {"stages.0.downsample": "there is no neuron before it"}
    assert len(report.fused) == len(report.layers) - 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_written_past_torch_are_seen(dtype):
    """As mmengine's ``EMAHook`` swaps averaged weights in: through ``.data``."""
    model = MODELS["chain"]().to(DEVICE)  # in training: fresh running statistics silence it
    x = maps(2, 2, 8, 6, 8, torch.float32, True)
    autocast = torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32)
    with torch.no_grad(), autocast:
        before = model(x)
        for p in model.parameters():
            p.data.copy_(p.data.flip(0))
        after = model(x)
        with fused.disabled():
            plain = model(x)
    assert far(after, before) > 0.1
    assert far(after, plain) < (1e-3 if dtype == torch.float32 else 0.2)


def test_backbone_learns_the_same():
    arch = dict(embed_dims=[16, 16, 24, 32], num_heads=2)
    model = MetaSpikeFormer(arch=arch, time_steps=2, decode="mean", attn_init_size=(32, 32))
    model = nn.Sequential(model.to(DEVICE), Last())
    img = torch.rand(2, 3, 32, 32, device=DEVICE)
    ours, explanation = results(model, img, torch.float32, False)
    plain, _ = results(model, img, torch.float32, True)
    assert explanation.plain == {"0.stages.0.downsample": "there is no neuron before it"}
    assert far(ours["y"], plain["y"]) < 1e-3
    assert far(ours["x"], plain["x"]) < 1e-2


class Last(nn.Module):
    def forward(self, ys):
        return ys[-1]


REASONS = {
    "ReLU": (
        lambda: spike_conv(8, 8, 3, norm_cfg=BN, neuron_cfg=dict(type="ReLU")),
        "the kernels know LIF, not ReLU",
    ),
    "surrogate": (
        lambda: spike_conv(
            8, 8, 3, norm_cfg=BN, neuron_cfg=dict(type="mmspike.LIF", surrogate=dict(type="S2NN"))
        ),
        "the kernels do not know the surrogate S2NN",
    ),
    "backend": (
        lambda: spike_conv(
            8, 8, 3, norm_cfg=BN, neuron_cfg=dict(type="mmspike.LIF", backend="eager")
        ),
        "the neuron asks for backend 'eager'",
    ),
    "transposed": (
        lambda: SpikeLayer(nn.ConvTranspose2d(8, 8, 2, 2), build_norm(BN, 8)),
        "ConvTranspose2d runs as it is",
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_reasons(name):
    build, reason = REASONS[name]
    layer = build().to(DEVICE)
    x = maps(2, 2, 8, 4, 4, torch.float32, True)
    ours, explanation = results(layer, x, torch.float32, False)
    plain, _ = results(layer, x, torch.float32, True)
    assert explanation.plain == {"": reason}
    assert far(ours["y"], plain["y"]) < 1e-4


def test_reasons_of_inputs(monkeypatch):
    layer = spike_conv(8, 8, 3, norm_cfg=BN).to(DEVICE)

    def reason(x):
        return fused.explain(layer, x).layers[""]

    assert reason(maps(16, 1, 8, 4, 4, torch.float32, True)) is None
    assert "up to 16 time steps, not 17" in reason(maps(17, 1, 8, 4, 4, torch.float32, True))
    x = maps(1, 1, 8, 4, 4, torch.float32, True)
    layer.neuron.register_forward_hook(lambda *_: None)
    assert reason(x) == "the neuron has hooks"
    monkeypatch.setattr("mmspike.neurons.kernels.triton.has_triton", lambda: False)
    assert reason(x) == "Triton is not installed"


def test_spikes_are_kept_as_bits():
    layer = Chain(spike_conv(8, 64, 1, norm_cfg=BN), spike_conv(64, 8, 3, norm_cfg=BN)).to(DEVICE)
    x = maps(2, 2, 8, 8, 8, torch.float32, True).requires_grad_()
    kept = {}

    def pack(t):
        kept[t.data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(x)
    pixels = 2 * 2 * 8 * 8
    assert sorted(t.numel() for t in kept.values() if t.dtype == torch.uint8) == [
        pixels * 8 // 8,
        pixels * 64 // 8,
    ]
    if not STANDS_IN:  # which keeps more
        wide = [t for t in kept.values() if t.is_floating_point() and t.numel() == pixels * 64]
        assert len(wide) == 1  # what the first convolution gave


def test_qkv_ask_once_whether_spikes_are_constant(monkeypatch):
    from mmspike.fused.cuda import spikes

    asked, ask = [], spikes.Spikes.are_constant
    looked = []

    def are_constant(self):
        asked.append(self)
        before = self._constant
        answer = ask(self)
        looked.append(before is None)
        return answer

    monkeypatch.setattr(spikes.Spikes, "are_constant", are_constant)
    attention = MODELS["attention"]().to(DEVICE)
    attention(torch.full((1, 2, 8, 5, 6), -9.0, device=DEVICE, requires_grad=True))
    assert len(asked) == 4  # q, k, v and the projection
    assert sum(looked) == 2
    assert all(bool(s._constant) for s in asked)
