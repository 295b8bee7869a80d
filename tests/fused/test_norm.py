"""Batch norms with a backward pass of their own, against torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmspike.fused import checkpointed
from mmspike.fused.cpu import norm as norms
from mmspike.fused.cpu.norm import normalise
from mmspike.native import library

pytestmark = pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")


def batch_norm(channels, **kwargs):
    norm = nn.BatchNorm2d(channels, **kwargs)
    for x in (norm.weight, norm.bias):
        nn.init.normal_(x)
    return norm


def channels_last(*shape):
    return (3 * torch.randn(shape) + 5).contiguous(memory_format=torch.channels_last)


def grads(run, norm, y, weight):
    y = y.detach().requires_grad_()
    out = run(norm, y)
    out.backward(weight)
    return [out.detach(), y.grad, norm.weight.grad, norm.bias.grad]


@pytest.fixture
def calls(monkeypatch):
    seen, kernel = [], norms.kernels.sums
    monkeypatch.setattr(norms.kernels, "sums", lambda *a: seen.append(a) or kernel(*a))
    return seen


@pytest.mark.parametrize("shape", [(4, 8, 5, 7), (1, 3, 9, 2), (6, 13, 1, 1), (2, 360, 14, 14)])
@pytest.mark.parametrize("momentum", [0.1, None, 0.0])
@pytest.mark.usefixtures("instruction_set")
def test_against_torch(shape, momentum, calls):
    norm = batch_norm(shape[1], momentum=momentum)
    plain = copy.deepcopy(norm)
    for _ in range(2):  # running statistics move
        y, weight = channels_last(*shape), channels_last(*shape)
        given = grads(normalise, norm, y, weight)
        expected = grads(lambda norm, y: norm(y), plain, y, weight)
        for a, b in zip(given, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())
    assert len(calls) == 2
    for a, b in zip(norm.buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b)


def test_as_exact_as_torch(calls):
    norm, y, weight = batch_norm(16), channels_last(5, 16, 20, 30), channels_last(5, 16, 20, 30)
    plain, exact = copy.deepcopy(norm), copy.deepcopy(norm).double()
    given = grads(normalise, norm, y, weight)
    torchs = grads(lambda norm, y: norm(y), plain, y, weight)
    expected = grads(lambda norm, y: norm(y), exact, y.double(), weight.double())
    assert len(calls) == 1
    for a, b, c in zip(given, torchs, expected, strict=True):
        size = c.abs().max()
        assert (a - c).abs().max() < 1.1 * (b - c).abs().max() + 1e-6 * size < 2e-4 * size


def test_sums_that_do_not_fit_into_float32_on_the_way():
    norm, y = batch_norm(8), channels_last(4, 8, 6, 5)
    nn.init.constant_(norm.weight, 300.0)
    y, weight = (1e-6 * y).requires_grad_(), 5e31 * y
    normalise(norm, y).backward(weight)
    assert y.grad.isfinite().all()
    assert y.grad.abs().max() > 1e37


def test_gradients_of_another_layout(calls):
    norm, y = batch_norm(8), channels_last(3, 8, 4, 5)
    weight = torch.randn(3, 8, 4, 5)
    given = grads(normalise, norm, y, weight)
    norm.zero_grad()
    expected = grads(lambda norm, y: norm(y), norm, y, weight)
    for a, b in zip(given, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert len(calls) == 1


@pytest.mark.parametrize("what", ["evaluation", "channels first", "hook", "autocast", "group norm"])
def test_what_is_left_to_torch(what, calls):
    norm, y = batch_norm(8), channels_last(3, 8, 4, 5)
    seen = []
    if what == "evaluation":
        norm.eval()
    elif what == "channels first":
        y = y.contiguous()
    elif what == "hook":
        norm.register_forward_hook(lambda *_: seen.append(1))
    elif what == "group norm":
        norm = nn.GroupNorm(2, 8)
    y.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=what == "autocast"):
        out = normalise(norm, y)
    out.sum().backward()
    assert not calls
    assert len(seen) == (what == "hook")
    assert y.grad is not None


def test_second_derivatives():
    norm, y = batch_norm(8), channels_last(3, 8, 4, 5)
    found = []
    for run in (normalise, lambda norm, y: norm(y)):
        x = y.clone(memory_format=torch.preserve_format).requires_grad_()
        (grad,) = torch.autograd.grad(run(norm, x).pow(3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), [x, norm.weight]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize(
    ("kwargs", "counts"),
    [
        (dict(), True),
        (dict(), False),
        (dict(momentum=None), True),
        (dict(track_running_stats=False), False),
    ],
    ids=str,
)
def test_statistics_under_checkpointing(kwargs, counts):
    layer = nn.Sequential(batch_norm(8, **kwargs))
    if not counts:
        layer[0].num_batches_tracked = None
    plain = copy.deepcopy(layer)
    layer.forward = lambda y: normalise(layer[0], y)
    for _ in range(2):
        y, weight = channels_last(3, 8, 4, 5), channels_last(3, 8, 4, 5)
        given = grads(lambda _, y: checkpointed(layer, y), layer[0], y, weight)
        expected = grads(lambda norm, y: norm(y), plain[0], y, weight)
        for a, b in zip(given, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())
    for a, b in zip(layer.buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b)


def test_backward_twice_under_checkpointing():
    layer = nn.Sequential(batch_norm(8))
    y = channels_last(3, 8, 4, 5).requires_grad_()
    out = checkpointed(layer, y)
    before = [b.clone() for b in layer.buffers()]
    first = torch.autograd.grad(out.square().sum(), y, retain_graph=True)[0]
    second = torch.autograd.grad(out.square().sum(), y)[0]
    assert torch.equal(first, second)
    assert layer[0].momentum == 0.1
    for a, b in zip(layer.buffers(), before, strict=True):
        assert torch.equal(a, b)


def test_an_error_while_computing_again_leaves_the_norm_as_it_was():
    layer, calls = nn.Sequential(batch_norm(8)), []

    def fail_the_second_time(*_):
        calls.append(1)
        if len(calls) > 1:
            raise KeyError("second")

    layer[0].register_forward_pre_hook(fail_the_second_time)
    out = checkpointed(layer, channels_last(3, 8, 4, 5).requires_grad_())
    before = [b.clone() for b in layer.buffers()]
    with pytest.raises(KeyError, match="second"):
        out.sum().backward()
    assert layer[0].momentum == 0.1
    for a, b in zip(layer.buffers(), before, strict=True):
        assert torch.equal(a, b)


def test_frozen_weights(calls):
    norm, y = batch_norm(8).requires_grad_(False), channels_last(3, 8, 4, 5).requires_grad_()
    normalise(norm, y).square().sum().backward()
    given, y.grad = y.grad, None
    norm(y).square().sum().backward()
    torch.testing.assert_close(given, y.grad, rtol=1e-4, atol=1e-4)
    assert len(calls) == 1
