"""Norm and neuron in one pass, against one behind the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmspike.fused import checkpointed
from mmspike.fused.cpu import spikes
from mmspike.fused.cpu.convolution import convolve
from mmspike.fused.cpu.spikes import PackedSpikes, fire, norm_and_fire
from mmspike.layers.conv import ONE_SIGMA_RATE, run_layers, spike_conv
from mmspike.layers.time import per_step
from mmspike.native import library
from mmspike.neurons import LIF
from mmspike.neurons.kernels.common import laid_out_like

pytestmark = pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")


PLAIN = (
    "test_hooks_on_layers_are_called",
    "test_norms_that_do_not_learn_and_single_values",
    "test_other_norms_run_as_they_are",
    "test_what_does_not_fit_is_refused_by_torch",
)
"""Tests of what does not go through norm and neuron in one pass; all others have to."""


@pytest.fixture(autouse=True)
def _taken(request, monkeypatch):
    """Assert that the fast path was taken, or that it was not."""
    calls, apply = [], spikes._NormFire.apply
    monkeypatch.setattr(spikes._NormFire, "apply", lambda *args: calls.append(1) or apply(*args))
    yield
    assert bool(calls) == (request.function.__name__ not in PLAIN)


def norm_of(channels, **kwargs):
    norm = nn.BatchNorm2d(channels, **kwargs)
    nn.init.uniform_(norm.weight, 1, 3)
    nn.init.normal_(norm.bias, 0.5)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def input_of(time_steps, channels=24, offset=0.0):
    y = torch.randn(time_steps, 2, 9, 8, channels) * torch.rand(channels) + offset
    return y.permute(0, 1, 4, 2, 3)


def gradients(run, norm, y, weight):
    y = y.detach().requires_grad_()
    s = run(norm, LIF(), y)
    s.backward(weight)
    return s, [y.grad, norm.weight.grad, norm.bias.grad], dict(norm.named_buffers())


def one_by_one(norm, neuron, y):
    return neuron(per_step(norm, y))


@pytest.mark.parametrize("time_steps", range(1, 9))
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_equals_norm_then_neuron(time_steps, training, momentum, offset):
    norm = norm_of(24, momentum=momentum).train(training)
    other = copy.deepcopy(norm)
    y = input_of(time_steps, offset=offset)
    if not training:
        norm.running_mean += offset
        other.running_mean += offset
    weight = torch.randn_like(y)
    s, grads, state = gradients(norm_and_fire, norm, y, weight)
    expected_s, expected, expected_state = gradients(one_by_one, other, y, weight)
    assert 0.02 < expected_s.mean() < 0.9
    # an offset costs the plain norm digits, too
    assert (s != expected_s).double().mean() < (1e-3 if offset else 1e-9)
    tol = 2e-2 if offset else 2e-5
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol * float(b.abs().max()))
    for key, value in expected_state.items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-5)


def test_gradients_against_double_precision():
    norm = norm_of(16)
    double = copy.deepcopy(norm).double()
    y = input_of(4, 16)
    weight = torch.randn_like(y)
    _, grads, _ = gradients(norm_and_fire, norm, y, weight)
    _, expected, _ = gradients(one_by_one, double, y.double(), weight.double())
    for a, b in zip(grads, expected, strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()


def test_the_norms_output_is_not_kept():
    norm, y = norm_of(24), input_of(3).requires_grad_()
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    with hooks:
        norm_and_fire(norm, LIF(), y)
    assert [t.data_ptr() for t in kept if t.numel() >= y.numel()] == [y.data_ptr()]


class Chain(nn.Sequential):
    def forward(self, x_seq):
        return run_layers(self, x_seq)


def chain(**kwargs):
    return Chain(
        spike_conv(8, 16, 3, norm_cfg=dict(type="BN"), init_rate=ONE_SIGMA_RATE, **kwargs),
        spike_conv(16, 24, 1, norm_cfg=dict(type="BN"), init_rate=ONE_SIGMA_RATE, **kwargs),
        spike_conv(24, 8, 3, norm_cfg=dict(type="BN"), **kwargs),
    )


def run_all(model, x, weight):
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    y.backward(weight)
    return [y.detach(), x.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_chain(time_steps, training):
    model = chain().train(training)
    x = 2 * input_of(time_steps, 8) + 1
    weight = torch.randn_like(x)
    other = copy.deepcopy(model)
    for module in other.modules():
        if isinstance(module, LIF):
            module.backend = "eager"  # norm, neuron and layer one by one
    fused, plain = run_all(model, x, weight), run_all(other, x, weight)
    for a, b in zip(fused, plain, strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-5
    for a, b in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_checkpointing_changes_nothing():
    model, x = chain(), 2 * input_of(2, 8) + 1
    weight = torch.randn_like(x)
    other = copy.deepcopy(model)
    expected = run_all(model, x, weight)
    x = x.clone().requires_grad_()
    y = checkpointed(other, x)
    y.backward(weight)
    for a, b in zip([y, x.grad, *(p.grad for p in other.parameters())], expected, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


def test_hooks_on_layers_are_called():
    model, x = chain(), input_of(2, 8)
    called = []
    for module in model.modules():
        module.register_forward_hook(lambda m, args, out: called.append(type(out)))
    model(x)
    assert len(called) == 1 + 3 * 4
    assert set(called) == {torch.Tensor}


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 24), nn.Identity(), nn.BatchNorm2d(24, affine=False)], ids=str
)
def test_other_norms_run_as_they_are(norm):
    y = input_of(2)
    assert torch.equal(norm_and_fire(norm, LIF(), y), LIF()(per_step(norm, y)))


def test_bits_for_those_that_read_bits():
    conv, norm = nn.Conv2d(24, 8, 3), norm_of(24)
    s = norm_and_fire(norm.eval(), LIF(), input_of(2), conv)
    assert isinstance(s, PackedSpikes)
    with torch.autocast("cpu", torch.bfloat16):
        assert type(norm_and_fire(norm, LIF(), input_of(2), conv)) is torch.Tensor


@pytest.mark.parametrize(
    "layout",
    [
        lambda y: y[:1].expand(3, -1, -1, -1, -1),
        lambda y: torch.cat([y, y], dim=1)[:, :2],
        lambda y: y.repeat_interleave(2, dim=0)[::2],
        lambda y: y.contiguous(),
    ],
    ids=["the same at every step", "part of a batch", "every second step", "channels first"],
)
def test_layouts(layout):
    norm, other = norm_of(24), norm_of(24)
    other.load_state_dict(norm.state_dict())
    y = layout(input_of(3))
    weight = torch.randn(y.shape)
    found = []
    for run, n in ((norm_and_fire, norm), (one_by_one, other)):
        leaf = y.detach()
        leaf.requires_grad_()  # keeps the layout
        s = run(n, LIF(), leaf)
        found.append([s, *torch.autograd.grad(s, [leaf, n.weight, n.bias], weight)])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 2e-5 * b.abs().max()


def test_gradients_do_not_depend_on_how_hooks_keep_tensors():
    norm, y = norm_of(24), input_of(3).requires_grad_()
    weight = torch.randn(y.shape)
    expected = torch.autograd.grad(norm_and_fire(norm, LIF(), y), y, weight)[0]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.contiguous(), lambda t: t):
        s = norm_and_fire(norm, LIF(), y)
    torch.testing.assert_close(torch.autograd.grad(s, y, weight)[0], expected)


def test_norms_that_do_not_learn_and_single_values():
    norm = norm_of(24)
    norm.track_running_stats = False
    before = norm.running_mean.clone()
    norm_and_fire(norm, LIF(), input_of(2))
    assert torch.equal(norm.running_mean, before)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        norm_and_fire(norm_of(8), LIF(), torch.randn(1, 1, 8, 1, 1))


def test_what_does_not_fit_is_refused_by_torch():
    x = input_of(2, 16)
    with pytest.raises(RuntimeError, match="channels"):
        Chain(spike_conv(8, 16, 3, norm_cfg=dict(type="BN")))(x)
    with pytest.raises(RuntimeError, match="running_mean should contain"):
        norm_and_fire(norm_of(8), LIF(), x)
    conv = nn.Conv2d(16, 8, 3)
    s = fire(LIF(), x[..., :2, :2], conv).flatten(0, 1)
    with pytest.raises(RuntimeError, match="does not fit into a map of 2 x 2"):
        convolve(conv, s)


@pytest.mark.parametrize(("time_steps", "batch"), [(1, 1), (2, 1), (2, 2)])
def test_gradients_of_channels_last_maps_are_not_copied(time_steps, batch, monkeypatch):
    layers = Chain(*(spike_conv(16, 16, 3, norm_cfg=dict(type="BN")) for _ in range(3)))
    taken = []

    def watch(grad, x):
        out = laid_out_like(grad, x)
        taken.append(out is grad)
        return out

    monkeypatch.setattr("mmspike.neurons.kernels.common.laid_out_like", watch)
    x = torch.randn(time_steps, batch, 6, 7, 16).permute(0, 1, 4, 2, 3).requires_grad_()
    y = layers(x)
    y.backward(torch.ones(time_steps, batch, 6, 7, 16).permute(0, 1, 4, 2, 3))
    assert taken == [True] * 3
