"""The kernels of norm and neuron against plain torch under autograd."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import nn

from mmspike.neurons import LIF, build_surrogate
from mmspike.neurons.functional import integer_lif_multi_step, lif_multi_step
from mmspike.neurons.kernels.common import IntegerParameters, LIFParameters
from tests.fused.cuda.helpers import (
    DEVICE,
    DTYPES,
    HALVES,
    MARKS,
    TOLERANCE,
    check_spikes,
    far,
    maps,
)

pytest.importorskip("triton")
norm_lif = import_module("mmspike.fused.cuda.norm_lif")
pytestmark = MARKS


def neuron(surrogate="Sigmoid", alpha=4.0, **change):
    given = dict(tau=2.0, v_threshold=1.0, v_reset=0.0, decay_input=True, detach_reset=True)
    cfg = dict(type=surrogate, alpha=alpha)
    return LIFParameters(**{**given, **change}, surrogate=build_surrogate(cfg))


NEURONS = {
    "published": neuron(),
    "soft": neuron(v_reset=None),
    "rest": neuron(v_reset=0.2, tau=3.0),
    "attached": neuron(detach_reset=False, tau=4.0),
    "soft attached": neuron(detach_reset=False, v_reset=None, v_threshold=0.5),
    "no decay": neuron(decay_input=False, v_threshold=1.5),
    "atan": neuron("ATan", 2.0),
    "erf": neuron("Erf", 2.0),
    "quadratic": neuron("PiecewiseQuadratic", 1.0),
    "rect": neuron("Rect", 1.0),
    "softsign": neuron("SoftSign", 2.0),
    "superspike": neuron("SuperSpike", 1.0),
}
INTEGERS = {
    "NI-LIF": IntegerParameters(4, 0.5, True, True),
    "I-LIF": IntegerParameters(4, 0.7, False, True),
    "three levels, attached": IntegerParameters(3, 0.5, True, False),
    "one level": IntegerParameters(1, 0.5, False, True),
}
NEURONS |= INTEGERS
F32, F16 = torch.float32, torch.float16
CASES = [  # name of the neuron, T, B, C, H, W, type, channels last
    *((name, 3, 1, 16, 5, 7, F32, True) for name in NEURONS),
    *(("published", t, 2, 24, 5, 6, F16, True) for t in range(1, 17)),
    *(("published", t, 2, 24, 5, 6, F16, False) for t in (1, 4, 7, 16)),
    *(("published", 2, 2, 20, 6, 6, d, last) for d in DTYPES for last in (True, False)),
    *(("NI-LIF", t, 2, 24, 5, 6, F16, last) for t in (1, 2, 4, 16) for last in (True, False)),
    ("published", 1, 2, 24, 24, 24, F32, True),  # several programs
    ("published", 1, 3, 5, 33, 35, F32, False),
    ("published", 1, 2, 8, 200, 200, F16, True),  # several groups of programs
    ("published", 4, 1, 200, 6, 6, F16, True),  # several tiles of channels
    ("published", 2, 2, 17, 7, 5, F16, True),  # nothing divides
]
IDS = ["-".join(map(str, c)).replace("torch.", "") for c in CASES]


def plain(x, p):
    if isinstance(p, IntegerParameters):
        return integer_lif_multi_step(x, *p)
    return lif_multi_step(x, **p._asdict())


def values_of(p):
    """What a neuron may give."""
    if isinstance(p, LIFParameters):
        return (0.0, 1.0)
    return tuple(n / (p.levels if p.normalize else 1) for n in range(p.levels + 1))


def norm_like(c, training):
    norm = nn.BatchNorm2d(c, device=DEVICE)
    with torch.no_grad():
        norm.weight.uniform_(1.5, 3)
        norm.bias.uniform_(-0.5, 0.5)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 6)
    return norm.train(training)


def as_norm(m, **change):
    vectors = (m.weight, m.bias, m.running_mean, m.running_var, m.num_batches_tracked)
    return norm_lif.Norm(*vectors, m.training, m.momentum, m.eps)._replace(**change)


def plain_norm_lif(norm, y, p):
    x = norm(y.flatten(0, 1).float())
    if y.dtype in HALVES:
        x = x + (x.to(y.dtype).float() - x).detach()
    return plain(x.view(y.shape), p)


def check_norm_lif(p, y, training, out=None):
    norm, ours = norm_like(y.size(2), training), norm_like(y.size(2), training)
    ours.load_state_dict(norm.state_dict())
    ys = [y.clone().requires_grad_() for _ in range(2)]
    want = plain_norm_lif(norm, ys[0], p)
    got, bits = norm_lif.norm_and_fire(ys[1], as_norm(ours), p, out or norm_lif.Output(y.dtype))
    assert got.stride() == y.stride()
    wrong = check_spikes(got, want, values_of(p))
    g = torch.randn_like(want).to(got.dtype)
    grads = torch.autograd.grad(want, (ys[0], norm.weight, norm.bias), g.float())
    mine = torch.autograd.grad(got, (ys[1], ours.weight, ours.bias), g)
    flips = 0.05 if wrong else 0  # a neuron that fires elsewhere has another gradient
    for name, a, b in zip(("y", "weight", "bias"), mine, grads, strict=True):
        assert far(a, b) < TOLERANCE[y.dtype] + flips, (name, far(a, b))
    for a, b in zip(ours.buffers(), norm.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    return ours, ys[1], got, bits


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_norm_and_neuron(case, training):
    name, *sizes, dtype, last = case
    check_norm_lif(NEURONS[name], maps(*sizes, dtype, last), training)


@pytest.mark.parametrize("case", CASES[:20] + CASES[-10:], ids=IDS[:20] + IDS[-10:])
def test_neuron_alone(case):
    name, *sizes, dtype, last = case
    p, x = NEURONS[name], maps(*sizes, dtype, last)
    xs = [x.clone().requires_grad_() for _ in range(2)]
    want, (got, _) = plain(xs[0].float(), p), norm_lif.fire(xs[1], p, norm_lif.Output(dtype))
    check_spikes(got, want, values_of(p))
    g = torch.randn_like(want).to(dtype)
    a = torch.autograd.grad(got, xs[1], g)[0]
    assert far(a, torch.autograd.grad(want, xs[0], g.float())[0]) < TOLERANCE[dtype]


LIFS = [c for c in CASES if c[0] not in INTEGERS][:30]


@pytest.mark.parametrize("case", LIFS, ids=lambda c: "-".join(map(str, c)))
def test_backend_of_a_neuron(case):
    from mmspike.neurons.kernels import triton

    name, *sizes, dtype, last = case
    p, x = NEURONS[name], maps(*sizes, dtype, last)
    xs = [x.clone().requires_grad_() for _ in range(2)]
    want, got = plain(xs[0].float(), p), triton.lif_multi_step(xs[1], **p._asdict())
    check_spikes(got, want)
    g = torch.randn_like(want).to(dtype)
    a = torch.autograd.grad(got, xs[1], g)[0]
    assert far(a, torch.autograd.grad(want, xs[0], g.float())[0]) < TOLERANCE[dtype]


def test_backend_of_any_shape():
    from mmspike.neurons.kernels import triton

    x = 2 * torch.randn(3, 5, 7, device=DEVICE)
    assert torch.equal(triton.lif_multi_step(x[:, ::2], **neuron()._asdict()).float(),
                       plain(x[:, ::2], neuron()))  # fmt: skip
    with pytest.raises(TypeError, match="up to 16 time steps, not 17"):
        triton.lif_multi_step(torch.zeros(17, 2, device=DEVICE), **neuron()._asdict())
    if DEVICE == "cuda":
        assert torch.equal(LIF(backend="triton")(x), plain(x, neuron()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("steps", [1, 4])
def test_bias_and_neuron(steps, last, dtype):
    y = maps(steps, 2, 24, 6, 10, dtype, last)
    bias = torch.randn(24, device=DEVICE).to(dtype)
    want = plain((y + bias.view(-1, 1, 1)).float(), neuron())
    got, _ = norm_lif.bias_and_fire(y, bias, neuron(), norm_lif.Output(dtype))
    check_spikes(got, want)


@pytest.mark.parametrize("channels", [16, 13])
@pytest.mark.parametrize("last", [True, False])
def test_bytes_are_the_integers(channels, last):
    p = INTEGERS["NI-LIF"]
    out = norm_lif.Output(F16, bits=True)
    *_, values, counts = check_norm_lif(p, maps(3, 2, channels, 5, 6, F16, last), True, out)
    assert counts.dtype == torch.uint8
    assert counts.stride() == values.stride()
    assert torch.equal((counts / 4).to(F16), values)
    assert counts.max() > 1


@pytest.mark.parametrize("channels", [16, 24, 200])
@pytest.mark.parametrize("dtype", [F32, F16])
def test_bits_are_the_spikes(channels, dtype):
    y = maps(3, 2, channels, 5, 6, F32, True)
    out = norm_lif.Output(dtype, bits=True)
    *_, spikes, bits = check_norm_lif(neuron(), y, True, out)
    assert spikes.dtype == dtype
    assert bits.numel() * 8 == spikes.numel()
    assert torch.equal(norm_lif.unpack(bits, torch.full_like(spikes.detach(), 7)), spikes)
    channels_first = bits.view(3, 2, 5, 6, -1).unsqueeze(-1) >> torch.arange(8, device=DEVICE) & 1
    assert torch.equal(channels_first.flatten(-2).movedim(-1, 2), spikes.to(torch.uint8))


def test_many_calls_are_one():
    """The second call takes the short way; it, and calls after it, equal the first bit for bit."""
    y = maps(2, 2, 24, 24, 24, F16, True)
    norm, y, first, _ = check_norm_lif(neuron(), y, True)

    def gradients():
        out, _ = norm_lif.norm_and_fire(y, as_norm(norm), neuron(), norm_lif.Output(F16))
        assert torch.equal(out, first)
        return torch.autograd.grad(out, (y, norm.weight, norm.bias), torch.ones_like(out))

    expected = gradients()
    for _ in range(3):
        assert all(map(torch.equal, gradients(), expected))


def test_large_mean():
    """The variance survives a mean of a thousand deviations."""
    y = maps(1, 2, 16, 24, 24, F32, True, scale=1.0, shift=1000.0)
    norm = nn.BatchNorm2d(16, momentum=1.0, device=DEVICE)
    norm_lif.norm_and_fire(y, as_norm(norm), neuron(), norm_lif.Output(F32))
    assert far(norm.running_var, y.flatten(0, 1).double().var((0, 2, 3))) < 1e-4


def test_refuses_what_it_cannot_read():
    y = maps(2, 2, 8, 4, 4, F32, False).transpose(3, 4)[:, :, ::2]
    with pytest.raises(ValueError, match="dense maps"):
        norm_lif.fire(y, neuron(), norm_lif.Output(F32))
    with pytest.raises(ValueError, match="a multiple of 8"):
        norm_lif.fire(maps(2, 2, 9, 4, 4, F32, True), neuron(), norm_lif.Output(F32, bits=True))
