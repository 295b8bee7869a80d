"""Energy of whole models: what must not depend on what, and MACs against other counters."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from torch import nn

from mmspike.backbones import MetaSpikeFormer, MetaSpikeFormerClassifier
from mmspike.deploy.folding import fold_rep_convs
from mmspike.energy import Conventions, measure, measure_firing_rates
from mmspike.energy.plots import draw_report
from mmspike.energy.table import format_report
from mmspike.engine.inputs import estimate_norms
from mmspike.layers.rep_conv import RepConv
from mmspike.neurons import LIF

ARCH = dict(embed_dims=[16, 16, 24, 32], num_heads=4)


def live(model: nn.Module, *inputs) -> nn.Module:
    """Norms with statistics, so that a fresh model fires in evaluation."""
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all inputs
    for x in inputs:
        model(x)
    return model.eval()


def classifier(time_steps=1, **options):
    torch.manual_seed(0)
    model = MetaSpikeFormerClassifier(
        num_classes=5, arch=ARCH, time_steps=time_steps, attn_init_size=(40, 48), **options
    )
    return live(model, *torch.randn(12, 2, 3, 40, 48))


def as_ann(model: nn.Module) -> nn.Module:
    """The same network on real values: RepConv folded, ReLU for neurons."""
    for name, module in list(model.named_modules()):
        parent, _, key = name.rpartition(".")
        if isinstance(module, RepConv):
            setattr(
                model.get_submodule(parent), key, fold_rep_convs([module.eval()], [nn.Identity()])
            )
        elif isinstance(module, LIF):
            setattr(model.get_submodule(parent), key, nn.ReLU())
    return model


@pytest.mark.parametrize("time_steps", [1, 4])
def test_batches_and_their_order_change_nothing(time_steps):
    model = classifier(time_steps)
    images = torch.randn(4, 3, 40, 48)
    one_by_one = measure(model, images.split(1))
    for batches in (images.flip(0).split(1), images.split(2), [images], images.split(3)):
        report = measure(model, batches)
        assert report.num_images == 4
        assert report.total == pytest.approx(one_by_one.total, rel=1e-12)
        for a, b in zip(report.layers, one_by_one.layers, strict=True):
            assert a.rates == b.rates
            assert a.synops == pytest.approx(b.synops, rel=1e-12)
        assert [row.rates for row in report.neurons] == [row.rates for row in one_by_one.neurons]


def test_steps_add_up():
    model = classifier(4)
    image = torch.randn(1, 3, 40, 48)
    report = measure(model, [image])
    assert report.time_steps == 4
    rows = [report.row_dict(row) for row in report.layers if row.reads == "spikes"]
    assert all(len(row["synops_per_step"]) == len(row["rate_per_step"]) == 4 for row in rows)
    steps = [sum(row["synops_per_step"][t] for row in rows) for t in range(4)]
    assert sum(steps) == pytest.approx(report.total["synops"], rel=1e-12)
    for row in rows:
        synops = [rate * row["macs"] for rate in row["rate_per_step"]]
        assert row["synops_per_step"] == pytest.approx(synops, rel=1e-9)
    # what an image gives at T = 1 is the first step
    model.backbone.time_steps = 1
    (first,) = [sum(r.synops[0] for r in measure(model, [image]).layers if r.synops)]
    assert first == pytest.approx(steps[0], rel=1e-12)


def test_rates_are_those_of_spikingjellys_monitor():
    model = classifier(2)
    image = torch.randn(2, 3, 40, 48)
    report = measure(model, [image])
    rates = measure_firing_rates(model, lambda: model(image))
    assert {r.name: sum(r.rates) / 2 for r in report.neurons} == pytest.approx(rates)
    assert report.firing_rate == pytest.approx(sum(rates.values()) / len(rates))
    assert 0.02 < report.firing_rate < 0.6


def test_only_the_image_and_the_pointwise_convolutions_read_real_values():
    report = measure(classifier(2), [torch.randn(1, 3, 40, 48)])
    real = {row.name: row.reads for row in report.layers if row.reads != "spikes"}
    assert real.pop("backbone.stages.0.downsample.layer") == "image"
    assert sorted(real) == [
        f"backbone.stages.{stage}.blocks.{block}.mixer.1.layer.1"
        for stage, block in ((0, 0), (1, 0), (2, 0), (2, 1))
    ]
    assert report.uncounted == []


@pytest.mark.parametrize("time_steps", [1, 2])
def test_macs_are_those_of_the_ann(time_steps):
    model = classifier(time_steps)
    image = torch.randn(1, 3, 40, 48)
    ours = measure(model, [image]).total["macs"]
    model.backbone.time_steps = 1
    theirs = FlopAnalyzer(as_ann(model), image).unsupported_ops_warnings(False).by_operator()
    weights = {op: n for op, n in theirs.items() if op != "batch_norm"}
    assert set(weights) == {"conv", "linear", "matmul"}
    assert ours == sum(weights.values())


def test_ordinary_head_on_average_maps_is_macs():
    class Hybrid(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = MetaSpikeFormer(
                arch=ARCH, time_steps=4, decode="mean", out_indices=(3,), attn_init_size=(40, 48)
            )
            self.head = nn.Conv2d(24, 7, 3, padding=1)

        def forward(self, img):
            return self.head(self.backbone(img)[0])

    report = measure(live(Hybrid(), torch.randn(4, 3, 32, 32)), [torch.randn(1, 3, 32, 32)])
    head = report.layers[-1]
    assert (head.name, head.reads) == ("head", "real values")
    assert head.executed == head.macs == 4 * 9 * 24 * 7
    assert report.parts["head"]["energy_mj"] == pytest.approx(4.6e-9 * head.macs)
    assert report.parts["backbone"]["synops"] > 0


def test_exact_borders_leave_operations_out():
    model = classifier()
    image = torch.randn(1, 3, 40, 48)
    formula, exact = (measure(model, [image], Conventions(borders=b)) for b in ("formula", "exact"))
    for a, b in zip(formula.layers, exact.layers, strict=True):
        assert b.macs <= a.macs
        assert a.rates == b.rates
    assert exact.total["macs"] < formula.total["macs"]


def test_report_on_disk(tmp_path):
    report = measure(classifier(2), [torch.randn(1, 3, 40, 48)], data="noise")
    files = report.save(tmp_path / "new") + draw_report(report, tmp_path / "new")
    assert [f.name for f in files] == [
        "energy.json",
        "energy.csv",
        "energy_by_layer.pdf",
        "energy_by_layer.png",
        "energy_by_part.pdf",
        "energy_by_part.png",
        "firing_rates.pdf",
        "firing_rates.png",
    ]
    assert all(f.stat().st_size > 1000 for f in files)
    data = json.loads(files[0].read_text())
    assert data["conventions"]["mac_pj"] == 4.6
    assert (data["data"], data["num_images"], data["time_steps"]) == ("noise", 1, 2)
    energy = sum(row["energy_mj"] for row in data["layers"])
    assert energy == pytest.approx(data["total"]["energy_mj"])
    assert energy == pytest.approx(sum(part["energy_mj"] for part in data["parts"].values()))
    by_hand = 0.9e-9 * data["total"]["synops"] + 4.6e-9 * data["total"]["real_macs"]
    assert energy == pytest.approx(by_hand)
    with files[1].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(data["layers"])
    assert sum(float(row["energy_mj"]) for row in rows) == pytest.approx(energy)
    text = format_report(report)
    assert "backbone.stages.3.blocks.0.mixer #2" in text
    assert "Read real values, charged as MACs:" in text
    assert "WARNING" not in text


def test_norms_get_the_statistics_of_the_images():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1, momentum=0.1)

        def test_step(self, batch):
            return self.norm(batch["inputs"][0])

    model = Net().eval()
    images = torch.randn(3, 1, 1, 8, 8) + 5
    estimate_norms(model, [dict(inputs=[x]) for x in images])
    assert model.norm.running_mean.item() == pytest.approx(images.mean().item())
    assert model.norm.momentum == 0.1
    assert not model.norm.training
