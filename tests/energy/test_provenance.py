"""Spikes, and time, followed through what models do with them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based.neuron import LIFNode
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmspike.energy import Conventions, EnergyCounter, measure, measure_firing_rates
from mmspike.neurons import LIF
from tests.energy.test_counter import draw, potentials

T, B, N = 4, 2, 6
ONE_PASS = B * N * 5  # of the layer below


class Net(nn.Module):
    """A neuron, something, and a layer of 6 to 5."""

    def __init__(self, between, layer=None):
        super().__init__()
        self.neuron, self.layer, self.between = LIF(), layer or nn.Linear(N, 5), between

    def forward(self, x):
        return self.layer(self.between(self.neuron(x)))


def count(model, x, grad=torch.no_grad):
    with grad(), EnergyCounter(model.eval()) as counter:
        model(x)
    return counter.report(1).layers


# what is done with spikes [T, B, N]: (spikes that enter per step, MACs of one pass)
KEEPS = {
    "nothing": (lambda s: s, lambda s: s.sum((1, 2)), ONE_PASS),
    "folded": (lambda s: s.flatten(0, 1), lambda s: s.sum((1, 2)), ONE_PASS),
    "batch first": (lambda s: s.transpose(0, 1), lambda s: s.sum((1, 2)), ONE_PASS),
    "there and back": (
        lambda s: s.transpose(0, 1).transpose(0, 1).flatten(0, 1),
        lambda s: s.sum((1, 2)),
        ONE_PASS,
    ),
    "average": (lambda s: s.mean(0), lambda s: s.sum((1, 2)), ONE_PASS),
    "average, batch first": (
        lambda s: s.transpose(0, 1).mean(1),
        lambda s: s.sum((1, 2)),
        ONE_PASS,
    ),
    "average, counted from behind": (lambda s: s.mean(-3), lambda s: s.sum((1, 2)), ONE_PASS),
    "part of the batch": (lambda s: s[:, :1], lambda s: s[:, :1].sum((1, 2)), ONE_PASS / 2),
    "both halves": (
        lambda s: torch.cat([s[:, 1:], s[:, :1]], dim=1),
        lambda s: s.sum((1, 2)),
        ONE_PASS,
    ),
    "coincidences": (lambda s: s * s.flip(-1), lambda s: (s * s.flip(-1)).sum((1, 2)), ONE_PASS),
    "last step": (lambda s: s[-1], lambda s: s[-1].sum()[None], ONE_PASS),
    "last step, kept": (lambda s: s[-1:], lambda s: s[-1].sum()[None], ONE_PASS),
    "two steps": (lambda s: s[1:3], lambda s: s[1:3].sum((1, 2)), ONE_PASS),
}


@pytest.mark.parametrize("name", KEEPS)
@pytest.mark.parametrize("steps", [1, T])
@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
def test_still_spikes(name, steps, grad):
    if steps == 1 and name == "two steps":
        pytest.skip("there is one")
    between, enter, macs = KEEPS[name]
    spikes = draw(steps, B, N)
    (row,) = count(Net(between), potentials(spikes), grad)
    assert row.reads == "spikes"
    assert row.macs == macs
    assert sum(row.synops) == pytest.approx(5 * enter(spikes).sum().item())
    assert row.spikes == pytest.approx(enter(spikes).tolist())


REAL = {
    "scaled": lambda s: 0.5 * s,
    "sum": lambda s: s.sum(0) / T,
    "added": lambda s: (s + 1)[0],
    "average over the batch too": lambda s: s.mean((0, 1))[None].expand(B, N),
    "written to": lambda s: s.clone().fill_(0.5).mean(0),
    "average beside spikes": lambda s: torch.stack([s.mean(0), s[0]])[0],
}


@pytest.mark.parametrize("name", REAL)
def test_real_values_and_their_time(name):
    (row,) = count(Net(REAL[name]), potentials(draw(T, B, N)))
    assert row.reads == "real values"
    assert row.macs == ONE_PASS
    assert row.executed == (T * ONE_PASS if name == "scaled" else ONE_PASS)


def test_average_over_a_batch_of_t_images_is_none_over_time():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron, self.layer = LIF(), nn.Linear(N, 5)

        def forward(self, x):
            return self.layer((0.5 * self.neuron(x)).transpose(0, 1).mean(0))  # of [B, T, N]

    (row,) = count(Mean(), torch.randn(2, 2, N))
    assert row.executed == 2 * row.macs == 2 * N * 5


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
def test_writing_through_a_view_is_noticed(grad):
    def write(s):
        s[..., 0].fill_(0.5)
        return s

    (row,) = count(Net(write), potentials(draw(T, B, N)), grad)
    assert row.reads == "real values"


def test_products_with_bias_and_factor_count_coincidences():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = LIF(), LIF()

        def forward(self, a, b):
            bias = torch.full((T, 3, 5), 3.0)
            return torch.baddbmm(bias, self.a(a), self.b(b), alpha=0.125)

    a, b = draw(T, 3, 7), draw(T, 7, 5)
    with torch.no_grad(), EnergyCounter(model := Both()) as counter:
        model(potentials(a), potentials(b))
    assert counter.report(1).layers[0].synops == (a @ b).sum((1, 2)).tolist()


def test_image_repeated_in_front_of_the_stem_is_charged_once():
    class Net(nn.Module):
        def __init__(self, first):
            super().__init__()
            self.stem, self.neuron, self.first = nn.Conv2d(3, 4, 3, padding=1), LIF(), first

        def forward(self, img):
            if self.first:
                x = self.stem(img.repeat(T, 1, 1, 1)).unflatten(0, (T, -1))
            else:
                x = self.stem(img).expand(T, -1, -1, -1, -1)
            return self.neuron(x)

    images = torch.randn(3, 2, 3, 8, 8)
    reports = [measure(Net(first), list(images)) for first in (True, False)]
    for report in reports:
        (row,) = report.layers
        assert row.reads == "image"
        assert report.row_dict(row)["macs"] == 64 * 27 * 4
        assert report.energy_mj(row) == pytest.approx(4.6e-9 * 64 * 27 * 4)


def test_layer_on_spikes_and_on_real_values_has_two_rows():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron, self.layer = LIF(), nn.Linear(N, N)

        def forward(self, x):
            return self.layer(self.layer(self.neuron(x)))

    rows = count(Twice(), torch.randn(1, B, N))
    assert [(r.name, r.reads) for r in rows] == [
        ("layer", "spikes"),
        ("layer (real values)", "real values"),
    ]


def test_another_mode_inside_counts_too_and_nothing_twice():
    model = Net(lambda s: s.mean(0))
    flops = FlopCounterMode(display=False)
    with torch.no_grad(), EnergyCounter(model) as counter, flops:
        model(torch.randn(T, B, N))
    assert flops.get_total_flops() == 2 * ONE_PASS
    assert [row.macs for row in counter.report(1).layers] == [ONE_PASS]


def test_an_error_that_is_caught_leaves_the_counter_whole():
    model = Net(lambda s: s)
    with torch.no_grad(), EnergyCounter(model) as counter:
        with pytest.raises(AttributeError):
            model.neuron(None)
        model(torch.randn(T, B, N))
    assert [row.calls for row in counter.report(1).layers] == [1]


def test_backward_passes_are_not_counted():
    model = Net(lambda s: s.mean(0), nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 2, 1)))
    with EnergyCounter(model) as counter:
        model(torch.randn(T, B, N)).sum().backward()
    assert [row.kind for row in counter.report(1).layers] == ["conv"]


def test_padding_by_name():
    model = Net(lambda s: s.flatten(0, 1), nn.Conv2d(2, 3, 3, padding="valid"))
    spikes = draw(1, 1, 2, 5, 5)
    with torch.no_grad(), EnergyCounter(model, Conventions(borders="exact")) as counter:
        model(potentials(spikes))
    ones = F.conv2d(spikes[0], torch.ones(3, 2, 3, 3))
    assert counter.report(1).layers[0].synops == [ones.sum().item()]


def test_single_step_neurons_have_one_step():
    model = nn.Sequential(LIFNode(step_mode="s"), nn.Linear(N, 5))
    rates = measure_firing_rates(model, lambda: [model(torch.ones(b, N) * 9) for b in (3, 2)])
    assert rates == {"0": 1.0}


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        (torch.rand(2, 3, 8, 8), TypeError, "sequence of batches"),
        (dict(inputs=[]), TypeError, "sequence of batches"),
        ([torch.rand(3, 8, 8)], ValueError, r"must be \[B, C, H, W\]"),
    ],
)
def test_measure_refuses(batches, error, message):
    with pytest.raises(error, match=message):
        measure(nn.Conv2d(3, 4, 1), batches)
