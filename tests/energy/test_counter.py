"""Counts that can be made by hand, spike by spike."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn

from mmspike.deploy.folding import fold_rep_convs
from mmspike.energy import Conventions, EnergyCounter, measure
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.conv import SpikeLayer
from mmspike.layers.rep_conv import RepConv
from mmspike.layers.time import mean_over_time, per_step
from mmspike.neurons import LIF

EXACT = Conventions(borders="exact")
BN = dict(type="BN")


class Read(nn.Module):
    """A neuron, and a layer that reads its spikes step by step."""

    def __init__(self, layer: nn.Module, average: bool = False):
        super().__init__()
        self.neuron = LIF()
        self.layer = layer
        self.average = average

    def forward(self, x_seq):
        s = self.neuron(x_seq)
        return self.layer(mean_over_time(s)) if self.average else per_step(self.layer, s)


def potentials(spikes: torch.Tensor) -> torch.Tensor:
    """What makes a LIF give these spikes, however far below its threshold it was before."""
    return torch.where(spikes > 0, 999.0, -9.0)


def draw(*shape: int, rate: float = 0.3) -> torch.Tensor:
    return (torch.rand(shape) < rate).float()


def count(model, x_seq, conventions=None, inference=False):
    grad = torch.inference_mode if inference else torch.no_grad
    with grad(), EnergyCounter(model.eval(), conventions) as counter:
        model(x_seq)
    return counter.report(num_images=x_seq.size(1))


def count_by_hand(spikes, conv):
    """Additions of a convolution: for every output and every tap, is there a spike? Per step."""
    totals = []
    transposed = isinstance(conv, nn.ConvTranspose2d)
    with torch.no_grad():
        out = conv(spikes[0]).shape[-2:]
    for step in spikes:
        total = 0
        for n, c, y, x in (step != 0).nonzero().tolist():
            for i, j in product(range(conv.kernel_size[0]), range(conv.kernel_size[1])):
                place, inside = [], True
                for a, at, tap in ((0, y, i), (1, x, j)):
                    s, p, d = conv.stride[a], conv.padding[a], conv.dilation[a]
                    if transposed:
                        place.append(at * s - p + tap * d)
                    else:
                        inside &= (at + p - tap * d) % s == 0
                        place.append((at + p - tap * d) // s)
                inside &= all(0 <= q < size for q, size in zip(place, out, strict=True))
                total += inside * conv.out_channels // conv.groups * step[n, c, y, x].item()
        totals.append(total)
    return totals


CONVS = {
    "3x3": nn.Conv2d(2, 3, 3, padding=1),
    "stride": nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
    "7x7, stride": nn.Conv2d(2, 4, 7, stride=2, padding=3),
    "no padding": nn.Conv2d(2, 3, 3),
    "1x1, stride": nn.Conv2d(2, 3, 1, stride=2),
    "groups": nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": nn.Conv2d(4, 4, 7, padding=3, groups=4, bias=False),
    "dilation": nn.Conv2d(2, 3, 3, padding=2, dilation=2),
    "oblong": nn.Conv2d(2, 3, (1, 5), padding=(0, 2), stride=(1, 2)),
    "deconv": nn.ConvTranspose2d(2, 3, 2, stride=2),
    "deconv, cropped": nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1),
    "deconv, groups": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2),
}


@pytest.mark.parametrize("conv", CONVS.values(), ids=CONVS)
@pytest.mark.parametrize("time_steps", [1, 3])
def test_convolution_to_the_operation(conv, time_steps):
    spikes = draw(time_steps, 2, conv.in_channels, 5, 6)
    by_hand = count_by_hand(spikes, conv)
    (row,) = count(Read(conv), potentials(spikes), EXACT).layers
    assert row.reads == "spikes"
    assert row.synops == by_hand
    assert row.macs == sum(count_by_hand(torch.ones_like(spikes[:1]), conv))
    assert row.executed == time_steps * row.macs

    (row,) = count(Read(conv), potentials(spikes)).layers
    out = conv(spikes[0])
    places = spikes[0, 0, 0] if isinstance(conv, nn.ConvTranspose2d) else out[0, 0]
    macs = 2 * places.numel() * conv.weight.numel()  # 2 images
    assert row.macs == macs
    assert row.rates == spikes.flatten(1).double().mean(1).tolist()
    assert row.synops == pytest.approx([r * macs for r in row.rates], rel=1e-12)


@pytest.mark.parametrize("conv", CONVS.values(), ids=CONVS)
def test_convolution_as_spikingjelly_counts_it(conv):
    spikes = draw(1, 2, conv.in_channels, 5, 6)
    theirs = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([theirs]):
        conv(spikes[0])
    (row,) = count(Read(conv), potentials(spikes), EXACT).layers
    assert row.synops == [theirs.get_total()]


def test_one_spike_in_a_corner():
    spikes = torch.zeros(1, 1, 2, 4, 4)
    spikes[0, 0, 1, 0, 0] = 1
    model = Read(nn.Conv2d(2, 5, 3, padding=1))
    assert count(model, potentials(spikes), EXACT).layers[0].synops == [4 * 5]
    assert count(model, potentials(spikes)).layers[0].synops == [9 * 5]
    report = count(model, potentials(spikes))
    assert report.total["synops"] == 45
    assert report.total["energy_mj"] == pytest.approx(45 * 0.9e-9)
    assert report.total["ann_energy_mj"] == pytest.approx(16 * 9 * 2 * 5 * 4.6e-9)


@pytest.mark.parametrize("conventions", [None, EXACT])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inference", [True, False])
def test_linear_to_the_operation(conventions, bias, inference):
    spikes = draw(4, 3, 7)
    model = Read(nn.Linear(7, 5, bias=bias))
    (row,) = count(model, potentials(spikes), conventions, inference).layers
    assert row.kind == "linear"
    assert row.input_shape == (12, 7)
    assert row.synops == (5 * spikes.sum((1, 2))).tolist()
    assert row.macs == 3 * 7 * 5


@pytest.mark.parametrize("conventions", [None, EXACT])
@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)])
def test_layer_behind_the_average_over_time_counts_every_spike(layer, conventions):
    spikes = draw(3, 2, 3, 4, 4)
    averaged = count(Read(layer, average=True), potentials(spikes), conventions).layers[0]
    each = count(Read(layer), potentials(spikes), conventions).layers[0]
    assert sum(averaged.synops) == pytest.approx(sum(each.synops), rel=1e-12)
    assert averaged.rates == each.rates
    assert averaged.macs == averaged.executed == each.macs
    if conventions is None or layer.kernel_size == (1, 1):
        assert averaged.synops == pytest.approx(each.synops, rel=1e-12)


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = LIF(), LIF(), LIF()

    def forward(self, q, k, v):
        q, k, v = self.q(q), self.k(k), self.v(v)
        return (k @ v.transpose(-2, -1)).transpose(-2, -1) @ q * 0.125


@pytest.mark.parametrize("conventions", [None, EXACT])
def test_attention_products_to_the_operation(conventions):
    q, k, v = (draw(2, 3, 2, 4, 10, rate=r) for r in (0.2, 0.4, 0.6))  # T, B, heads, D, N
    model = Product()
    with EnergyCounter(model, conventions) as counter:
        model(*map(potentials, (q, k, v)))
    first, second = counter.report(3).layers
    pairs = torch.zeros(2)
    for t, b, h, d, e, n in product(*map(range, (2, 3, 2, 4, 4, 10))):
        pairs[t] += k[t, b, h, d, n] * v[t, b, h, e, n]  # an addition where both are there
    assert first.synops == pairs.tolist()
    assert first.rates == pytest.approx((pairs / (3 * 2 * 4 * 4 * 10)).tolist())
    assert second.synops == (4 * q.sum((1, 2, 3, 4))).tolist()  # a row of k^T v for every spike
    assert first.macs == second.macs == 3 * 2 * 4 * 4 * 10
    assert [first.name, second.name] == ["(model)", "(model) #2"]


def test_products_of_spikes_as_spikingjelly_counts_them():
    k, v = draw(1, 6, 4, 10), draw(1, 6, 10, 4)
    theirs = SynOpCounter()
    with DispatchCounterMode([theirs]):
        torch.bmm(k[0], v[0])

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.k, self.v = LIF(), LIF()

        def forward(self, k, v):
            return self.k(k) @ self.v(v)

    model = Both()
    with EnergyCounter(model) as counter:
        model(potentials(k), potentials(v))
    assert counter.report(1).layers[0].synops == [theirs.get_total()]


def test_whole_attention_block():
    model = SpikeDrivenSelfAttention(8, 2, BN, None, dict(v_threshold=0.5), init_pixels=30)
    report = count(model, 3 * torch.randn(2, 1, 8, 6, 5))
    kinds = [row.kind for row in report.layers]
    assert kinds == ["RepConv as conv"] * 3 + ["matmul"] * 2 + ["RepConv as conv"]
    assert all(row.reads == "spikes" for row in report.layers)
    assert [row.macs for row in report.layers] == [30 * 9 * 64] * 3 + [2 * 30 * 16] * 2 + [
        30 * 9 * 64
    ]
    assert report.uncounted == []
    rate = {row.name: row.rates for row in report.neurons}
    assert report.layers[0].rates == rate["neuron"]
    assert report.layers[4].rates == rate["q_neuron"]
    assert report.layers[5].rates == rate["attn_neuron"]


@pytest.mark.parametrize("conventions", [None, EXACT])
def test_folded_rep_conv_counts_as_the_unfolded(conventions):
    model = Read(RepConv(6, BN))
    for norm in (model.layer.norm1, model.layer.norm2):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    spikes = draw(2, 3, 6, 5, 4)
    unfolded = count(model, potentials(spikes), conventions)
    expected = model(potentials(spikes))
    model.layer = fold_rep_convs([model.layer], [nn.Identity()])
    torch.testing.assert_close(model(potentials(spikes)), expected, rtol=1e-4, atol=1e-5)
    folded = count(model, potentials(spikes), conventions)
    assert folded.total == unfolded.total
    assert folded.layers[0].rates == unfolded.layers[0].rates
    if conventions is EXACT:
        by_hand = count_by_hand(spikes, nn.Conv2d(6, 6, 3, padding=1))
        assert unfolded.layers[0].synops == by_hand


def test_shared_layer_counts_every_call():
    model = Read(nn.Conv2d(2, 3, 3, padding=1))
    levels = [draw(2, 1, 2, size, size) for size in (16, 8, 4, 2, 1)]
    with torch.no_grad(), EnergyCounter(model, EXACT) as counter:
        for spikes in levels:
            model(potentials(spikes))
    (row,) = counter.report(1).layers
    each = [count_by_hand(spikes, model.layer) for spikes in levels]
    assert row.calls == 5
    assert row.synops == [sum(step) for step in zip(*each, strict=True)]
    (neurons,) = counter.report(1).neurons
    assert neurons.spikes == [sum(s[t].sum().item() for s in levels) for t in range(2)]
    assert neurons.outputs == sum(s[0].numel() for s in levels)


def test_real_values_are_macs_and_named():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(80, 2)
    )
    report = measure(model, [(torch.rand(2, 3, 4, 4) > 0.5).float()])  # zeros and ones: no spikes
    assert [row.reads for row in report.layers] == ["image", "real values", "real values"]
    assert report.total["macs"] == 16 * 9 * 12 + 16 * 20 + 80 * 2
    assert report.total["energy_mj"] == pytest.approx(4.6e-9 * report.total["macs"])
    assert report.total["synops"] == 0


def test_layer_behind_a_layer_reads_real_values_at_every_step():
    chain = nn.Sequential(nn.Conv2d(4, 4, 7, padding=3, groups=4), nn.Conv2d(4, 2, 1))
    model = SpikeLayer(chain, nn.BatchNorm2d(2))
    spikes = draw(4, 1, 4, 6, 6)
    depthwise, pointwise = count(model, potentials(spikes)).layers
    assert [depthwise.reads, pointwise.reads] == ["spikes", "real values"]
    assert pointwise.macs == 36 * 8
    assert pointwise.executed == 4 * pointwise.macs
    report = count(model, potentials(spikes))
    assert report.energy_mj(report.layers[1]) == pytest.approx(4.6e-9 * 4 * 36 * 8)
    assert report.ann_energy_mj(report.layers[1]) == pytest.approx(4.6e-9 * 36 * 8)


def test_integer_spikes_count_as_their_value():
    class Integers(nn.Module):
        spike_levels = 4
        step_mode = "m"

        def forward(self, x_seq):
            return x_seq.clamp(0, 4).round()

    model = nn.Sequential(Integers(), nn.Linear(3, 2))
    report = count(model, torch.tensor([[[0.0, 3.0, 4.0]], [[1.0, 0.0, 0.0]]]))
    assert report.layers[0].synops == [14, 2]
    assert report.layers[0].rates == [7 / 3, 1 / 3]
    assert report.neurons[0].levels == 4


def test_what_keeps_spikes_and_what_does_not():
    class Net(nn.Module):
        def __init__(self, between):
            super().__init__()
            self.neuron, self.layer, self.between = LIF(), nn.Conv2d(2, 3, 1), between

        def forward(self, x):
            return self.layer(self.between(self.neuron(x).flatten(0, 1)))

    spikes = draw(2, 1, 2, 4, 4)
    x = potentials(spikes)
    keeps = {
        nn.MaxPool2d(2): nn.MaxPool2d(2)(spikes[:, 0]),
        nn.Upsample(scale_factor=2): nn.Upsample(scale_factor=2)(spikes[:, 0]),
        nn.ZeroPad2d(1): nn.ZeroPad2d(1)(spikes[:, 0]),
        nn.Identity(): spikes[:, 0],
    }
    for between, moved in keeps.items():
        (row,) = count(Net(between), x).layers
        assert row.reads == "spikes"
        assert row.synops == (3 * moved.sum((1, 2, 3))).tolist()
    for between in (nn.AvgPool2d(2), nn.ReLU(), nn.BatchNorm2d(2), nn.ConstantPad2d(1, 0.5)):
        (row,) = count(Net(between), x).layers
        assert row.reads == "real values"
        assert row.executed == 2 * row.macs


def test_layers_that_no_rule_counts_are_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

        def forward(self, x):
            return (x.unsqueeze(-1) * self.weight).sum(-2)

    report = measure(nn.Sequential(nn.Linear(3, 3), Odd()), [torch.ones(1, 3)])
    assert report.uncounted == ["1"]


def test_image_layer_once_or_every_step():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.neuron, self.layer = nn.Conv2d(1, 2, 1), LIF(), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return per_step(self.layer, self.neuron(self.stem(x).expand(4, *x.shape[:1], 2, 3, 3)))

    image = torch.ones(1, 1, 3, 3)
    for image_layer, times in (("once", 1), ("per_step", 4)):
        report = measure(Net(), [image], Conventions(image_layer=image_layer))
        assert report.layers[0].reads == "image"
        assert report.energy_mj(report.layers[0]) == pytest.approx(times * 4.6e-9 * 18)
        assert report.ann_energy_mj(report.layers[0]) == pytest.approx(4.6e-9 * 18)


def test_model_is_left_as_it_was():
    model = Read(nn.Conv2d(2, 3, 1)).train()
    model.layer.eval()
    measure(model, [torch.zeros(1, 1, 2, 3, 3)])
    assert model.training
    assert not model.layer.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ValueError, match="no images"):
        measure(model, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(borders="none"), "borders must be one of"),
        (dict(image_layer="twice"), "image_layer must be one of"),
        (dict(mac_pj=0.0), "mac_pj must be positive"),
    ],
)
def test_conventions_refuse(options, message):
    with pytest.raises(ValueError, match=message):
        Conventions(**options)
