from __future__ import annotations

import pytest
import torch
from torch import nn

from mmspike.deploy import switch_to_deploy
from mmspike.layers.attention import (
    SpikeDrivenSelfAttention,
    linear_attention,
    mean_spikes,
    mix_heads,
    normalized_linear_attention,
    starting_scale,
)
from mmspike.neurons import build_neuron


def test_equals_the_quadratic_order_exactly():
    q, k, v = (torch.rand(3, 2, 2, 4, 5, 30) > 0.7).float()  # [T, B, heads, D, N]
    scores = q.transpose(-2, -1) @ k  # [.., N, N]
    expected = (scores @ v.transpose(-2, -1)).transpose(-2, -1) * 0.125
    assert torch.equal(linear_attention(q, k, v, 0.125), expected)
    assert expected.max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_counts_beyond_half_precision_survive_autocast(dtype):
    ones = torch.ones(1, 1, 4, 3001, dtype=dtype)  # k v^T is 3001, which neither type can hold
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = linear_attention(ones, ones, ones, 1 / 4)
    assert torch.equal(out, torch.full_like(out, 3001))


def test_double_precision_stays():
    q, k, v = (torch.rand(3, 1, 2, 4, 30) > 0.5).double()
    out = linear_attention(q, k, v, 0.125)
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, 0.125 * (k @ v.mT).mT @ q)


def test_sums_beyond_the_range_of_a_type_saturate():
    ones = torch.ones(1, 1, 80, 12000, dtype=torch.float16)
    out = linear_attention(ones, ones, ones, 0.125)
    assert (out == torch.finfo(torch.float16).max).all()


def test_heads_split_neighbouring_channels():
    q, k, v = torch.zeros(3, 1, 1, 6, 1, 1)
    q[0, 0, 1], k[0, 0, 0], v[0, 0, 2] = 1, 1, 1  # all in the first head, whose k^T v is not of q's
    assert mix_heads(q, k, v, num_heads=2, scale=1.0).abs().sum() == 0
    k[0, 0, 1] = 1
    out = mix_heads(q, k, v, num_heads=2, scale=1.0)
    assert out.flatten().tolist() == [0, 0, 1, 0, 0, 0]
    q[0, 0, 1], q[0, 0, 4] = 0, 1  # a channel of the other head
    assert mix_heads(q, k, v, num_heads=2, scale=1.0).abs().sum() == 0


def test_neuron_behind_the_attention_has_its_own_threshold():
    attention = SpikeDrivenSelfAttention(4, 2, dict(type="BN"), None, dict(v_threshold=0.5))
    assert attention.attn_neuron.v_threshold == 0.5
    assert attention.q_neuron.v_threshold == 1.0


@pytest.mark.parametrize("pixels", [64, 1024, 4200])
@pytest.mark.parametrize("width", [8, 40])
@pytest.mark.parametrize("integers", [False, True])
def test_attention_starts_near_its_threshold(pixels, width, integers):
    neuron, own = None, dict(v_threshold=0.5)
    if integers:
        neuron, own = dict(type="mmspike.IntegerLIF", levels=4), {}
    attention = SpikeDrivenSelfAttention(
        4 * width, 4, dict(type="BN"), neuron, own, init_pixels=pixels
    )
    maps = []
    attention.attn_neuron.register_forward_pre_hook(lambda m, args: maps.append(args[0]))
    rates = []
    attention.q_neuron.register_forward_hook(lambda m, args, out: rates.append(out.mean().item()))
    side = int(pixels**0.5)
    attention.train()(3 * torch.randn(1, 4, 4 * width, side, side))
    (mean,) = [m.mean().item() for m in maps]
    if attention.q_norm.weight[0] < attention.neuron.firing_input:  # else at its limit
        assert 0.5 < mean / attention.attn_neuron.firing_input < 2
    assert 0.02 < rates[0] < 0.2


def test_scale_at_the_start_by_hand():
    assert mean_spikes(starting_scale(0.001)) == pytest.approx(0.1, abs=1e-4)
    assert mean_spikes(starting_scale(0.001, levels=4), levels=4) == pytest.approx(0.1, abs=1e-4)
    assert starting_scale(1.0) == pytest.approx(1.0)  # no more than other layers
    assert mean_spikes(1.0) == pytest.approx(0.1587, abs=1e-4)
    drawn = torch.randn(100_000)
    expected = build_neuron(dict(type="mmspike.IntegerLIF", normalize=False))(
        2 * drawn[None]
    ).mean()
    assert mean_spikes(1.0, levels=4) == pytest.approx(expected.item(), abs=0.01)


def test_normalized_attention_is_an_average_over_the_pixels():
    q, k, v = torch.rand(3, 2, 2, 4, 5, 30, dtype=torch.float64)  # [T, B, heads, D, N]
    weights = q.transpose(-2, -1) @ k  # [..., N, N]
    expected = (weights / weights.sum(-1, keepdim=True)) @ v.transpose(-2, -1)
    out = normalized_linear_attention(q, k, v)
    torch.testing.assert_close(out, expected.transpose(-2, -1), rtol=1e-5, atol=1e-6)
    larger = normalized_linear_attention(100 * q, 100 * k, v)  # it is a matter of v alone
    torch.testing.assert_close(larger, out, rtol=1e-5, atol=1e-6)


def test_normalized_attention_without_weights_is_zero():
    q, k, v = torch.rand(3, 1, 2, 4, 30)
    out = normalized_linear_attention(torch.zeros_like(q), k, v)
    assert torch.equal(out, torch.zeros_like(v))


@pytest.mark.parametrize("neuron", ["ReLU", "mmspike.LIF"])
def test_attention_without_scale_averages_trained_and_deployed(neuron):
    torch.manual_seed(0)
    attention = SpikeDrivenSelfAttention(
        16, 4, dict(type="BN"), dict(type=neuron), {}, scale=None, init_pixels=64
    )
    summing = SpikeDrivenSelfAttention(16, 4, dict(type="BN"), dict(type=neuron), {})
    assert attention.state_dict().keys() == summing.state_dict().keys()
    x = 3 * torch.randn(1, 2, 16, 8, 8)
    for _ in range(30):
        attention.train()(x)
    attention.eval()
    calls = []
    attention.attn_neuron.register_forward_pre_hook(lambda m, args: calls.append(args[0]))
    with torch.no_grad():
        expected = attention(x)
        deployed = nn.Sequential(attention)
        switch_to_deploy(deployed)
        torch.testing.assert_close(deployed(x), expected, rtol=1e-4, atol=1e-4)
    assert len(calls) >= 1
    if neuron == "mmspike.LIF":
        assert calls[0].max() <= 1  # of spikes, averages are not above one
    assert calls[0].std() > 0
