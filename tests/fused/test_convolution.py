"""Convolutions that follow the spikes, against plain ones."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmspike.backbones import MetaSpikeFormer
from mmspike.backbones.blocks import SepConv
from mmspike.deploy import switch_to_deploy
from mmspike.fused.cpu import convolution
from mmspike.fused.cpu.attention import mix_packed
from mmspike.fused.cpu.convolution import convolve, convolve_and_fire, takes_table
from mmspike.fused.cpu.laid_out import LaidOutConv2d
from mmspike.fused.cpu.spikes import PackedSpikes, fire, fire_into_bits, per_step_of
from mmspike.layers.attention import linear_attention
from mmspike.layers.conv import spike_conv
from mmspike.native import conv as kernels
from mmspike.native import library
from mmspike.neurons import LIF

pytestmark = pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")

SHAPES = [
    # channels, out channels, kernel, stride, padding, height, width
    (8, 64, 3, 1, 1, 7, 9),
    (16, 5, 3, 1, 1, 6, 5),
    (32, 72, 3, 1, 1, 20, 33),
    (72, 200, 1, 1, 0, 5, 7),
    (24, 40, 1, 1, 1, 4, 4),
    (16, 24, 3, 2, 1, 9, 10),
    (8, 16, 7, 1, 3, 5, 6),
    (8, 16, 5, 1, 0, 9, 8),
    (16, 8, (1, 3), (1, 1), (0, 2), 6, 7),
    (40, 130, 3, 1, 1, 1, 1),
    (16, 12, 2, 2, 0, 7, 7),
    (272, 72, 3, 1, 1, 6, 7),  # channels in three groups
    (400, 24, 1, 1, 0, 9, 8),
    (8, 16, 1, 1, 3, 5, 4),  # rows of the output that read padding alone
    (16, 24, (1, 3), 1, (2, 2), 3, 4),
    (16, 24, 3, (2, 1), (1, 0), 8, 9),
    (8, 16, 2, 3, 1, 10, 11),
    (8, 64, 3, 1, 1, 12, 130),  # rows of more than a tile, and strips of one row
]


def potentials(time_steps, batch, channels, height, width, rate=0.16):
    """What a LIF turns into spikes at about this rate in its first step, channels last."""
    x = torch.randn(time_steps, batch, height, width, channels) + 2
    x -= torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - rate))
    return x.permute(0, 1, 4, 2, 3)


def results(x, conv, weight=None, plain=False):
    """Output and gradients of a neuron and a convolution after it."""
    x = x.detach().requires_grad_()
    conv.zero_grad()
    s = LIF()(x) if plain else fire(LIF(), x, conv)
    assert isinstance(s, PackedSpikes) is not plain
    y = conv(s.flatten(0, 1)) if plain else convolve(conv, s.flatten(0, 1))
    weight = torch.randn_like(y) if weight is None else weight
    y.backward(weight)
    return s, weight, [y.detach(), x.grad, *(p.grad for p in conv.parameters())]


def assert_close(given, expected):
    for a, b in zip(given, expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(
            a.detach(), b.detach(), rtol=1e-4, atol=1e-5 * b.detach().abs().max().item() + 1e-6
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("time_steps", [1, 3, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_and_its_gradients(shape, time_steps, bias, monkeypatch):
    channels, out, kernel, stride, padding, height, width = shape
    monkeypatch.setattr(convolution, "WINOGRAD_PIXELS", 1)
    conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=bias)
    x = potentials(time_steps, 2, channels, height, width)
    s, weight, given = results(x, conv)
    plain, _, expected = results(x, conv, weight, plain=True)
    assert_close(given, expected)
    assert torch.equal(s.unpack(), plain)
    assert s.count == plain.sum()


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("size", [(9, 20), (7, 7), (11, 8)])
@pytest.mark.parametrize("time_steps", [1, 2, 8])
def test_depthwise_convolution_and_its_gradients(kernel, padding, size, time_steps):
    for channels in (8, 24, 64):
        conv = nn.Conv2d(channels, channels, kernel, 1, padding, groups=channels, bias=False)
        x = potentials(time_steps, 2, channels, *size)
        _, weight, given = results(x, conv)
        assert_close(given, results(x, conv, weight, plain=True)[2])


@pytest.mark.parametrize("rate", [0.001, 0.5, 0.99])
def test_any_rate(rate):
    conv = nn.Conv2d(16, 24, 3, padding=1)
    x = potentials(2, 2, 16, 9, 8, rate)
    _, weight, given = results(x, conv)
    assert_close(given, results(x, conv, weight, plain=True)[2])


@pytest.mark.parametrize("rate", [1e-6, 0.01, 0.04, 0.08, 0.3])
@pytest.mark.parametrize("channels", [64, 272])
def test_groups_taken_together_at_low_rates(rate, channels):
    conv = nn.Conv2d(channels, 72, 3, padding=1)
    x = potentials(1, 2, channels, 7, 9, rate)
    _, weight, given = results(x, conv)
    assert_close(given, results(x, conv, weight, plain=True)[2])


@pytest.mark.parametrize("time_steps", [*range(1, 9), 40])  # 40: more than a tile has pixels
def test_every_number_of_steps_in_one_pass(time_steps):
    laid_out = LaidOutConv2d(nn.Conv2d(16, 24, 3, padding=1))
    neuron = LIF()
    laid_out.bias.data += neuron.firing_input
    x = potentials(time_steps, 2, 16, 5, 6)
    with torch.no_grad():
        s = fire(LIF(), x, laid_out)
        expected = neuron(per_step_of(lambda s: convolve(laid_out, s), s))
        fused = convolve_and_fire(laid_out, s, neuron.dynamics())
    assert torch.equal(fused.unpack(), expected)
    assert fused.count == expected.sum() > 0


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_dense_and_sparse_way_agree(limit, monkeypatch):
    conv = nn.Conv2d(32, 48, 3, padding=1)
    x = potentials(2, 3, 32, 11, 10, 0.3)
    _, weight, expected = results(x, conv)
    monkeypatch.setattr(convolution, "DENSE_RATE", limit)
    assert_close(results(x, conv, weight)[2], expected)


def test_laid_out_layers_in_inference():
    conv = nn.Conv2d(32, 48, 3, padding=1)
    laid_out = LaidOutConv2d(conv)
    for batch in (1, 3):
        x = potentials(2, batch, 32, 11, 10)
        with torch.no_grad():
            y = convolve(laid_out, fire(LIF(), x, laid_out).flatten(0, 1))
            assert_close([y], [conv(LIF()(x).flatten(0, 1))])


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set_and_number_of_threads(depthwise, threads, set_threads):
    conv = nn.Conv2d(40, 104, 3, padding=1)
    if depthwise:
        conv = nn.Conv2d(40, 40, 7, padding=3, groups=40, bias=False)
    x = potentials(2, 2, 40, 13, 11)
    set_threads(threads)
    _, weight, given = results(x, conv)
    assert_close(given, results(x, conv, weight, plain=True)[2])


def test_two_runs_are_equal_to_the_bit():
    conv = nn.Conv2d(32, 48, 3, padding=1)
    x = potentials(2, 3, 32, 30, 30)
    _, weight, first = results(x, conv)
    first = [t.clone() for t in first]
    for a, b in zip(results(x, conv, weight)[2], first, strict=True):
        assert torch.equal(a, b)


def test_several_layers_read_the_same_spikes():
    convs = nn.ModuleList(nn.Conv2d(16, 24, k, padding=k // 2) for k in (1, 3))
    x = potentials(2, 2, 16, 6, 6)

    def run(fired):
        return sum((n + 1) * convolve(c, fired).sum() for n, c in enumerate(convs))

    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    run(fire(LIF(), a, *convs).flatten(0, 1)).backward()
    run(LIF()(b).flatten(0, 1)).backward()
    assert_close([a.grad], [b.grad])


def test_bits_are_all_that_is_kept_of_the_spikes():
    conv = nn.Conv2d(32, 64, 3, padding=1)
    x = potentials(2, 2, 32, 12, 12).requires_grad_()
    kept = {}

    def keep(t):
        kept[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = convolve(conv, fire(LIF(), x, conv).flatten(0, 1))
    spikes = x.numel() // 8
    assert sorted(kept.values()) == sorted([4 * x.numel(), spikes, 4 * conv.weight.numel()])
    y.sum().backward()


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Conv2d(16, 16, 3, padding="same"),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(16, 16, 2, 2),
        nn.Conv2d(16, 16, 3).double(),
    ],
    ids=["groups", "dilation", "same", "reflect", "transposed", "double"],
)
def test_other_layers_get_plain_spikes(conv):
    x = potentials(2, 2, 16, 6, 6)
    s = fire(LIF(), x, conv)
    assert torch.equal(s, LIF()(x))


def test_hooks_see_spikes():
    conv, neuron = nn.Conv2d(16, 24, 3, padding=1), LIF()
    x = potentials(2, 2, 16, 6, 6)
    for module in (conv, neuron):
        seen = []
        handle = module.register_forward_hook(lambda m, args, out, seen=seen: seen.append(args[0]))
        convolve(conv, fire(neuron, x, conv).flatten(0, 1))
        handle.remove()
        assert type(seen[0]) is torch.Tensor
    assert isinstance(fire(neuron, x, conv), PackedSpikes)


def test_maps_that_are_not_channels_last():
    conv = nn.Conv2d(16, 24, 3, padding=1)
    x = potentials(2, 2, 16, 6, 7)
    _, weight, expected = results(x, conv)
    assert_close(results(x.contiguous(), conv, weight)[2], expected)
    shown = x[:1].expand(2, -1, -1, -1, -1)
    assert_close(results(shown, conv, weight)[2], results(shown.clone(), conv, weight)[2])


@pytest.mark.parametrize("time_steps", [1, 2])
@pytest.mark.parametrize("deployed", [False, True])
def test_maps_of_single_images_are_channels_last_for_torch(time_steps, deployed):
    layer = spike_conv(16, 24, 3, norm_cfg=dict(type="BN")).eval()
    if deployed:
        switch_to_deploy(layer)
    with torch.no_grad():
        y = layer(potentials(time_steps, 1, 16, 5, 6))[0]
        y = F.interpolate(y, scale_factor=2, mode="nearest")
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("channels", "out", "padding", "size"),
    [
        (32, 128, 1, (28, 28)),
        (128, 512, 1, (9, 10)),  # more than one panel and block of depth
        (17, 33, 1, (11, 6)),  # no whole vectors
        (16, 8, 0, (7, 9)),
        (8, 13, (2, 0), (3, 5)),
        (8, 8, (3, 5), (1, 1)),
    ],
)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "slice"])
@pytest.mark.usefixtures("instruction_set")
def test_gradient_of_inputs_in_double_precision(channels, out, padding, size, layout):
    weight = torch.randn(out, channels, 3, 3) / (9 * out) ** 0.5
    if layout == "channels last":
        weight = weight.contiguous(memory_format=torch.channels_last)
    elif layout == "slice":
        weight = torch.stack([weight, weight], dim=-1)[..., 1]
    padding = padding if isinstance(padding, tuple) else (padding, padding)
    geometry = kernels.geometry((3, channels, *size), tuple(weight.shape), (1, 1), padding)
    shape = (3, geometry.out_height, geometry.out_width, out)
    grad_out = torch.randn(shape).permute(0, 3, 1, 2)
    given = kernels.grad_input(grad_out, weight, geometry)
    assert given.shape == (3, channels, *size)
    expected, plain = (
        F.conv_transpose2d(grad_out.to(d), weight.to(d), padding=padding).double()
        for d in (torch.float64, torch.float32)
    )
    size = expected.square().mean().sqrt()
    error, plains = ((x - expected).square().mean().sqrt() / size for x in (given, plain))
    assert error < max(2.5 * plains, 1e-6)


def test_gradient_of_inputs_is_the_same_on_any_number_of_threads(set_threads):
    weight, grad_out = torch.randn(24, 16, 3, 3), torch.randn(2, 17, 9, 24).permute(0, 3, 1, 2)
    geometry = kernels.geometry((2, 16, 17, 9), (24, 16, 3, 3), (1, 1), (1, 1))
    found = []
    for threads in (1, 3, 64):  # at last, more than there are tiles
        set_threads(threads)
        found.append(kernels.grad_input(grad_out, weight, geometry))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_gradient_of_inputs_of_no_images():
    geometry = kernels.geometry((0, 8, 5, 5), (16, 8, 3, 3), (1, 1), (1, 1))
    grad = kernels.grad_input(torch.empty(0, 16, 5, 5), torch.randn(16, 8, 3, 3), geometry)
    assert grad.shape == (0, 8, 5, 5)


@pytest.mark.parametrize("least", [1, 10**6])
def test_gradient_of_inputs_in_layers(least, monkeypatch):
    monkeypatch.setattr(convolution, "WINOGRAD_PIXELS", least)
    calls, kernel = [], kernels.grad_input
    monkeypatch.setattr(kernels, "grad_input", lambda *a: calls.append(a) or kernel(*a))
    conv = nn.Conv2d(16, 24, 3, padding=1)
    x = potentials(2, 2, 16, 9, 8)
    _, weight, given = results(x, conv)
    assert len(calls) == (least == 1)
    assert_close(given, results(x, conv, weight, plain=True)[2])


def test_against_a_convolution_in_double_precision():
    s = (torch.rand(2, 10, 9, 64) < 0.2).permute(0, 3, 1, 2).double()
    conv = nn.Conv2d(64, 32, 3, padding=1)
    x = 3 * s.float()[None]
    y = convolve(conv, fire(LIF(), x, conv).flatten(0, 1))
    expected = F.conv2d(s, conv.weight.double(), conv.bias.double(), padding=1)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("dynamics", [{}, dict(tau=1.7, v_reset=None, v_threshold=0.6)], ids=str)
def test_convolution_and_the_neuron_behind_it_in_one_pass(shape, time_steps, dynamics):
    channels, out, kernel, stride, padding, height, width = shape
    laid_out = LaidOutConv2d(nn.Conv2d(channels, out, kernel, stride, padding))
    neuron = LIF(**dynamics)
    laid_out.bias.data += neuron.firing_input
    x = potentials(time_steps, 2, channels, height, width)
    with torch.no_grad():
        s = fire(LIF(), x, laid_out)
        fused = convolve_and_fire(laid_out, s, neuron.dynamics())
        if out % 8:
            assert fused is None
            return
        y = per_step_of(lambda s: convolve(laid_out, s), s)
        expected = neuron(y)
        assert torch.equal(fused.unpack(), expected)  # the sums are the same to the bit
    assert fused.count == expected.sum()
    assert 0 < expected.mean() < 1


def test_layers_are_run_together_without_gradients_alone():
    conv = nn.Conv2d(16, 24, 3, padding=1)
    s = fire(LIF(), potentials(1, 1, 16, 5, 5), conv)
    p = LIF().dynamics()
    with torch.no_grad():
        assert convolve_and_fire(LaidOutConv2d(conv), s, p) is not None
    assert convolve_and_fire(LaidOutConv2d(conv), s, p) is None  # gradients are wanted


@pytest.mark.parametrize("channels", [16, 24, 360])
@pytest.mark.parametrize("time_steps", [1, 2, 8])
@pytest.mark.usefixtures("instruction_set")
def test_attention_of_spikes_is_exact(channels, time_steps):
    heads = 8
    x = potentials(time_steps, 3, 3 * channels, 5, 7, rate=0.3)
    with torch.no_grad():
        s = fire_into_bits(LIF(), x)
        q, k, v = (y.flatten(3).unflatten(2, (heads, -1)) for y in LIF()(x).chunk(3, dim=2))
        expected = linear_attention(q, k, v, 0.125).flatten(2, 3).unflatten(3, (5, 7))
        out = mix_packed(s, heads, 0.125)
    assert torch.equal(out, expected)
    assert expected.max() > 1


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.95])
@pytest.mark.parametrize("kernel", [1, 3])
def test_lookup_tables_over_four_channels(rate, kernel, monkeypatch):
    conv = nn.Conv2d(32, 72, kernel, padding=kernel // 2)
    x = potentials(2, 2, 32, 9, 8, rate)
    monkeypatch.setattr(convolution, "takes_table", lambda *_: False)
    monkeypatch.setattr(convolution, "DENSE_RATE", 2.0)
    _, weight, expected = results(x, conv)
    monkeypatch.setattr(convolution, "takes_table", lambda *_: True)
    assert_close(results(x, conv, weight)[2], expected)
    laid_out = LaidOutConv2d(conv)
    with torch.no_grad():
        assert_close([convolve(laid_out, fire(LIF(), x, laid_out).flatten(0, 1))], expected[:1])
    assert set(laid_out.weight.layouts) == {("rows", True)}


@pytest.mark.parametrize(
    ("shape", "side", "rate", "made", "expected"),
    [
        ((64, 32, 1, 1), 14, 0.3, True, True),
        ((64, 32, 1, 1), 14, 0.2, True, False),
        ((1024, 256, 1, 1), 14, 0.3, True, True),
        ((64, 32, 1, 1), 112, 0.3, False, True),
        ((64, 32, 1, 1), 14, 0.3, False, False),  # too few pixels to make a table for
        ((64, 64, 3, 3), 112, 0.9, True, False),  # too many inputs
    ],
)
def test_when_a_lookup_table_is_taken(shape, side, rate, made, expected):
    inputs = torch.zeros(()).expand(1, 1, shape[1], side, side)
    spikes = PackedSpikes(inputs, None, int(rate * inputs.numel()))
    assert takes_table(torch.zeros(()).expand(shape), spikes, made) == expected


def test_a_stride_that_leaves_pixels_out_wants_more_spikes():
    spikes = PackedSpikes(torch.zeros(()).expand(1, 1, 32, 56, 56), None, 35 * 56 * 56 * 32 // 100)
    weight = torch.zeros(64, 32, 3, 3)
    assert takes_table(weight, spikes, made=False)
    assert not takes_table(weight, spikes, made=False, stride=4)


@torch.no_grad()
def test_deployed_backbone_on_several_threads(set_threads):
    arch = dict(embed_dims=[16, 16, 24, 32], num_heads=2)
    model = MetaSpikeFormer(arch, time_steps=2, attn_init_size=(64, 64))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    image = torch.randn(2, 3, 64, 64)
    model.train()(image)  # for the norms' statistics
    switch_to_deploy(model)
    set_threads(3)
    several = model(image)
    set_threads(1)
    for a, b in zip(several, model(image), strict=True):
        assert b.std() > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_training_on_several_threads(set_threads):
    layers = SepConv(16, dict(type="BN"), None)
    x, found = potentials(2, 2, 16, 20, 21), []
    for threads in (3, 1):
        set_threads(threads)
        net, inputs = copy.deepcopy(layers), x.clone().requires_grad_()
        y = net(inputs)
        y.square().mean().backward()
        found.append([y, inputs.grad, *(p.grad for p in net.parameters()), *net.buffers()])
    assert_close(*found)


def test_a_forward_put_over_a_layer_is_called(monkeypatch):
    conv = nn.Conv2d(16, 24, 3, padding=1)
    monkeypatch.setattr(conv, "forward", lambda s: s.sum())
    s = fire(LIF(), potentials(1, 1, 16, 5, 5), conv)
    assert type(s) is torch.Tensor
    assert convolve(conv, s) == s.sum()


def test_profiles_list_the_kernels():
    conv = nn.Conv2d(16, 24, 3, padding=1)
    x = potentials(1, 2, 16, 5, 6)
    with torch.profiler.profile() as profile:
        results(x, conv)
    names = {event.key for event in profile.key_averages()}
    assert {"mmspike::lif_forward", "mmspike::conv_forward", "mmspike::conv_grad_weight"} <= names
