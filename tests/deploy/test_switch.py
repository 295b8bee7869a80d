"""The deployed model against the training graph."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmspike.backbones import MetaSpikeFormer, MetaSpikeFormerClassifier
from mmspike.deploy import switch_to_deploy
from mmspike.deploy.folding import FoldedRepConv
from mmspike.energy import measure
from mmspike.fused import can_lay_out
from mmspike.fused.cpu.laid_out import LaidOutConv2d, LaidOutLinear
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.conv import SpikeLayer, build_norm, spike_conv
from mmspike.layers.rep_conv import RepConv
from mmspike.necks import SpikeFPN

ARCH = dict(embed_dims=[16, 16, 32, 32], num_heads=1)  # wide enough for its attention to fire
BN = dict(type="BN")


def trained(model: nn.Module, *inputs) -> nn.Module:
    """Norms as after a training: other than 1 and 0, and with statistics."""
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.momentum = None
            m.weight.data *= torch.empty_like(m.weight).uniform_(0.8, 1.2)
            m.bias.data += torch.empty_like(m.bias).uniform_(-0.3, 0.3)
    model.train()
    for x in inputs:
        model(x)
    return model.eval()


def assert_same(deployed, expected, allowed=2e-3):
    """Equal to rounding, but for what the few spikes change that another order of sums flips."""
    assert deployed.shape == expected.shape
    assert deployed.dtype == expected.dtype
    off = (deployed - expected).abs() > 1e-3
    assert off.double().mean() <= allowed
    assert expected.abs().max() > 1


@pytest.mark.parametrize("rep_conv", ["cheapest", "conv3x3"])
@pytest.mark.parametrize("time_steps", [1, 4])
@pytest.mark.parametrize("size", [(128, 96), (93, 130)])
@pytest.mark.parametrize("lay_out", [True, False])
def test_backbone(rep_conv, time_steps, size, lay_out):
    if lay_out and not can_lay_out():
        pytest.skip("no oneDNN")
    model = MetaSpikeFormer(arch=ARCH, time_steps=time_steps, attn_init_size=size)
    trained(model, *torch.randn(2, 2, 3, *size))
    plain = copy.deepcopy(model)
    report = switch_to_deploy(model, rep_conv, lay_out)
    with torch.no_grad():
        for batch in (3, 1):  # another size than the weights were laid out for
            x = torch.randn(1, batch, 3, *size)
            for stage, expected in zip(model.stages, plain.stages, strict=True):
                # part by part: behind the attention, one spike that flips changes every pixel
                y = expected.downsample(x)
                assert_same(stage.downsample(x), y)
                x = y.expand(time_steps, *y.shape[1:])
                for block, other in zip(stage.blocks, expected.blocks, strict=True):
                    y = other(x)
                    attention = isinstance(other.mixer, SpikeDrivenSelfAttention)
                    assert_same(block(x), y, allowed=0.05 if attention else 2e-3)
                    x = y
        image = torch.randn(2, 3, *size).double()
        plain.double()
        deployed = copy.deepcopy(plain)
        switch_to_deploy(deployed, rep_conv)
        for a, b in zip(deployed(image), plain(image), strict=True):  # the whole, without flips
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert report.norms_left == []
    assert not any(isinstance(m, RepConv) for m in model.modules())
    assert report.attentions == 8
    assert (report.laid_out > 0) == lay_out


def test_half_precision():
    model = trained(MetaSpikeFormer(arch=ARCH, attn_init_size=(64, 64)), torch.randn(4, 3, 64, 64))
    model.bfloat16()
    x = torch.randn(2, 3, 64, 64).bfloat16()
    plain = copy.deepcopy(model)
    switch_to_deploy(model)
    with torch.no_grad():
        y = plain.stages[0](x)
        deployed = model.stages[0](x)
    assert deployed.dtype == torch.bfloat16
    # eight bits round elsewhere, and some spikes differ for it
    assert (deployed - y).float().abs().mean() < 0.2 * y.float().std()


def test_one_rep_conv_is_the_chain_to_rounding():
    module = trained(RepConv(6, BN), torch.randn(4, 6, 9, 9)).double()
    norm = trained(build_norm(BN, 6), torch.randn(4, 6, 9, 9)).double()
    x = (torch.rand(2, 6, 5, 4) > 0.5).double()
    torch.testing.assert_close(FoldedRepConv([module], [norm])(x), norm(module(x)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, 1, bias=False),
        nn.Sequential(nn.Conv2d(4, 4, 7, padding=3, groups=4), nn.Conv2d(4, 6, 1)),
        nn.ConvTranspose2d(4, 6, 2, stride=2),
    ],
    ids=["conv", "without bias", "two that act as one", "transposed"],
)
def test_layers(layer):
    model = trained(SpikeLayer(layer, build_norm(BN, 6)), 3 * torch.randn(2, 3, 4, 9, 7))
    x = 3 * torch.randn(2, 3, 4, 9, 7)
    with torch.no_grad():
        expected = model(x)
        report = switch_to_deploy(model)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert report.folded == 1
    assert isinstance(model.norm, nn.Identity)


def test_linear_layer():
    model = trained(SpikeLayer(nn.Linear(5, 7), nn.BatchNorm1d(7)), 3 * torch.randn(2, 9, 5))
    for n in (4, 1, 0):
        x = 3 * torch.randn(2, n, 5)
        fresh = copy.deepcopy(model)
        with torch.no_grad():
            expected = fresh(x)
            switch_to_deploy(fresh)
            torch.testing.assert_close(fresh(x), expected, rtol=1e-4, atol=1e-5)
    assert isinstance(fresh.layer, LaidOutLinear) == can_lay_out()


def test_neck_and_what_it_does_not_know():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.neck = SpikeFPN([4, 6], 8, 3, in_strides=[4, 8])
            self.other = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))

        def forward(self, maps):
            outs = self.neck(maps)
            return [self.other(outs[0][0]), *outs]

    maps = [3 * torch.randn(2, 2, 4, 12, 10), 3 * torch.randn(2, 2, 6, 6, 5)]
    model = trained(Net(), maps)
    with torch.no_grad():
        expected = model(maps)
        report = switch_to_deploy(model)
        for a, b in zip(model(maps), expected, strict=True):
            assert_same(a, b)
    assert report.norms_left == ["other.1"]
    assert "norms left: other.1" in str(report)
    assert type(model.other[0]) is nn.Conv2d


def test_norm_per_image_stays():
    model = spike_conv(4, 8, 3, norm_cfg=dict(type="GN", num_groups=2))
    report = switch_to_deploy(model)
    assert isinstance(model.norm, nn.GroupNorm)
    assert report.folded == 0


@pytest.mark.parametrize("rep_conv", ["cheapest", "conv3x3"])
def test_energy_is_that_of_the_training_graph(rep_conv):
    model = MetaSpikeFormerClassifier(5, arch=ARCH, time_steps=2, attn_init_size=(40, 48))
    trained(model, *torch.randn(4, 2, 3, 40, 48))
    model.double()  # no spike flips
    image = torch.randn(2, 3, 40, 48).double()
    before = measure(model, [image])
    switch_to_deploy(model, rep_conv)
    after = measure(model, [image])
    assert after.total == pytest.approx(before.total, rel=1e-12)
    assert after.uncounted == []
    rates = {row.name: row.rates for row in before.layers}
    for row in after.layers:
        assert row.rates == rates[row.name.replace("qkv_conv", "q_conv")]


def test_energy_of_laid_out_layers():
    model = MetaSpikeFormerClassifier(5, arch=ARCH, attn_init_size=(40, 48))
    trained(model, *torch.randn(4, 2, 3, 40, 48))
    image = torch.randn(2, 3, 40, 48)
    before = measure(model, [image])
    switch_to_deploy(model)
    after = measure(model, [image])
    assert after.total["macs"] == before.total["macs"]
    assert after.total["synops"] == pytest.approx(before.total["synops"], rel=0.02)
    kinds = {row.name: row.kind for row in before.layers}
    for row in after.layers:
        assert row.kind == kinds[row.name.replace("qkv_conv", "q_conv")], row.name


@pytest.mark.skipif(not can_lay_out(), reason="no oneDNN")
def test_laid_out_weights_follow_the_plain_ones():
    layer = LaidOutConv2d(nn.Conv2d(4, 6, 3, padding=1))
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        first = layer(x)
        assert layer.weight.layouts
        twin = copy.deepcopy(layer)
        torch.testing.assert_close(twin(x), first)
        other = nn.Conv2d(4, 6, 3, padding=1)
        layer.load_state_dict(other.state_dict())
        torch.testing.assert_close(layer(x), other(x), rtol=1e-4, atol=1e-5)
        doubled = layer.double()
        torch.testing.assert_close(doubled(x.double()), other.double()(x.double()))


def test_refuses():
    with pytest.raises(ValueError, match="rep_conv must be one of"):
        switch_to_deploy(nn.Identity(), "fastest")
