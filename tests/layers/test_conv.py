from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmspike.layers.conv import (
    ONE_SIGMA_RATE,
    SpikeLayer,
    build_norm,
    init_firing_rate,
    spike_conv,
    spread_biases,
)
from mmspike.layers.rep_conv import RepConv
from mmspike.neurons import LIF

BN = dict(type="BN")


def randomise(module):
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1, 0.3)
            nn.init.normal_(m.bias, 0, 0.5)
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)


def test_repconv_is_one_3x3_convolution_border_included():
    conv = RepConv(4, BN).double().eval()
    randomise(conv)
    conv.double()
    # the response to every unit input gives the kernel of a linear map with an offset
    x = torch.zeros(1, 4, 7, 7, dtype=torch.float64)
    offset = conv(x)
    kernel = torch.stack(
        [
            (conv(F.pad(torch.eye(4)[c].double().view(1, 4, 1, 1), (3, 3, 3, 3))) - offset)[
                0, :, 2:5, 2:5
            ]
            for c in range(4)
        ],
        dim=1,
    ).flip(-1, -2)
    torch.testing.assert_close(offset, offset[..., :1, :1].expand_as(offset))
    y = torch.rand(2, 4, 5, 6, dtype=torch.float64)
    expected = F.conv2d(y, kernel, bias=offset[0, :, 0, 0], padding=1)
    torch.testing.assert_close(conv(y), expected)


def test_repconv_border_uses_statistics_after_the_batch_and_no_gradient():
    conv = RepConv(3, BN).train()
    x = torch.randn(4, 3, 5, 5)
    before = conv.border_value()
    conv(x)
    assert not torch.equal(conv.border_value(), before)
    assert not conv.border_value().requires_grad


def test_spike_layer_order_is_neuron_weights_norm():
    layer = spike_conv(2, 3, 3, stride=2, norm_cfg=BN).eval()
    randomise(layer)
    x = 2 * torch.randn(2, 2, 2, 9, 9)
    spikes = layer.neuron(x)
    expected = [layer.norm(F.conv2d(s, layer.layer.weight, stride=2, padding=1)) for s in spikes]
    torch.testing.assert_close(layer(x), torch.stack(expected))


def test_norm_starts_where_one_sigma_fires():
    neuron = dict(type="mmspike.LIF", tau=3.0)
    layer = spike_conv(2, 3, norm_cfg=BN, neuron_cfg=neuron, init_rate=ONE_SIGMA_RATE)
    assert layer.norm.weight.tolist() == pytest.approx([3.0] * 3)
    assert spike_conv(2, 3, norm_cfg=BN).norm.weight.tolist() == [1.0] * 3


@pytest.mark.parametrize("rate", [0.02, 0.1587, 0.3])
def test_norm_fires_at_the_rate_asked_for(rate):
    norm, neuron = build_norm(BN, 1), LIF()
    init_firing_rate(norm, neuron, rate)
    spikes = neuron(norm(torch.randn(200_000, 1, 1, 1))[None])
    assert spikes.mean().item() == pytest.approx(rate, abs=0.003)


def test_stems_thresholds_lie_all_over_the_range():
    norm, neuron = build_norm(BN, 7), LIF()
    spread_biases(norm, neuron)
    levels = torch.linspace(-2, 3, 501)
    norm.eval()  # statistics 0 and 1: the input is in standard deviations
    spikes = neuron(norm(levels.view(-1, 1, 1, 1).expand(-1, 7, 1, 1))[None])[0, :, :, 0, 0]
    first = torch.stack([levels[channel.nonzero()[0, 0]] for channel in spikes.T])
    torch.testing.assert_close(first, torch.linspace(-1, 2, 7), atol=0.011, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_levels_are_normalised_together(training):
    layer = spike_conv(3, 4, 3, norm_cfg=BN).train(training)
    xs = [2 * torch.randn(2, 2, 3, *size) for size in [(8, 6), (4, 3), (1, 2)]]
    outs = layer.forward_levels(xs)
    assert [y.shape for y in outs] == [(2, 2, 4, *x.shape[-2:]) for x in xs]
    reference = SpikeLayer(layer.layer, build_norm(BN, 4), None).train(training)
    raw = [F.conv2d(reference.neuron(x).flatten(0, 1), layer.layer.weight, padding=1) for x in xs]
    flat = torch.cat([y.flatten(2) for y in raw], -1).unsqueeze(-1)
    expected = reference.norm(flat).squeeze(-1).split([y[0, 0].numel() for y in raw], -1)
    for y, e in zip(outs, expected, strict=True):
        torch.testing.assert_close(y.flatten(0, 1).flatten(2), e)


def test_levels_with_a_norm_per_image_are_the_same_in_training_and_evaluation():
    layer = spike_conv(3, 4, 3, norm_cfg=dict(type="GN", num_groups=2))
    xs = [2 * torch.randn(2, 2, 3, *size) for size in [(8, 6), (4, 3)]]
    for trained, tested in zip(
        layer.train().forward_levels(xs), layer.eval().forward_levels(xs), strict=True
    ):
        assert torch.equal(trained, tested)
