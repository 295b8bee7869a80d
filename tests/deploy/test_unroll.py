"""Integers as binary frames: the same network, its weight layers fed zeros and ones."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmspike.backbones import ESpikeFormer, ESpikeFormerClassifier, MetaSpikeFormer
from mmspike.deploy import check_unrolled, switch_to_deploy, unroll
from mmspike.energy import measure
from mmspike.layers.forms import FormError
from tests.det import helpers as det
from tests.seg import helpers as seg

ARCH = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
NEURONS = {
    "NI-LIF": dict(type="mmspike.IntegerLIF", levels=4),
    "I-LIF": dict(type="mmspike.IntegerLIF", levels=3, normalize=False),
}


def trained(build, size=(48, 64), steps=3, lively=True, **options):
    """A model whose norms have seen images, with weights that make neurons fire."""
    torch.manual_seed(0)
    model = build(**options)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = None
            if not lively:
                continue
            nn.init.uniform_(m.weight, 0.7, 1.5)
            nn.init.uniform_(m.bias, 0.0, 0.6)
    model.train()
    with torch.no_grad():
        for _ in range(steps):
            model(torch.randn(4, 3, *size))
    return model.eval()


def unrolled_of(model):
    other = copy.deepcopy(model)
    return other, unroll(other)


@pytest.mark.parametrize("time_steps", [1, 2])
@pytest.mark.parametrize("neuron", NEURONS)
def test_e_spikeformer_is_the_same_on_binary_frames(neuron, time_steps):
    cfg = NEURONS[neuron]
    model = trained(ESpikeFormer, arch=ARCH, time_steps=time_steps, neuron_cfg=cfg)
    other, report = unrolled_of(model)
    assert report.frames == {cfg["levels"]}
    assert (report.attentions, report.neurons) == (8, 104)
    assert report.layers == 96
    x = torch.randn(2, 3, 48, 64)
    check = check_unrolled(model, other, lambda m: m(x))
    assert check.real == ["stages.0.downsample.layer"]
    assert len(check.binary) == 96
    assert len(check.moved) == report.neurons
    assert check.worst < 1e-3
    with torch.no_grad():
        for a, b in zip(model(x), other(x), strict=True):
            assert a.std() > 0.1
            off = (a - b).abs() > 1e-3  # an integer on a tie moved
            assert off.float().mean() < 1e-3
            torch.testing.assert_close(a[~off], b[~off], atol=1e-4, rtol=0)


def test_check_sees_another_network():
    """Frames multiplied index by index, and biases counted at every frame, are other networks."""
    model = trained(ESpikeFormer, arch=ARCH)
    x = torch.randn(2, 3, 48, 64)
    other, _ = unrolled_of(model)
    for m in other.modules():
        if isinstance(m, nn.Conv2d) and m.bias is not None:
            m.bias.data.mul_(4)
    assert check_unrolled(model, other, lambda m: m(x)).worst > 0.05
    other, _ = unrolled_of(model)
    attention = next(m for m in other.modules() if type(m).__name__ == "UnrolledAttention")
    real = attention.mix

    def same_index(q, k, v):
        parts = [x.unflatten(0, (-1, 4)).unbind(1) for x in (q, k, v)]
        zeros = [torch.zeros_like(p[0]) for p in parts]
        return sum(
            real(
                *(
                    torch.stack([p[i], z, z, z], 1).flatten(0, 1)
                    for p, z in zip(parts, zeros, strict=True)
                )
            )
            for i in range(4)
        )

    attention.mix = same_index
    assert check_unrolled(model, other, lambda m: m(x)).worst > 0.01


def test_classifier_and_its_logits():
    model = trained(ESpikeFormerClassifier, num_classes=5, arch=ARCH)
    other, _ = unrolled_of(model)
    x = torch.randn(3, 3, 48, 64)
    with torch.no_grad():
        a, b = model(x), other(x)
    assert a.std() > 0.01
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    assert check_unrolled(model, other, lambda m: m(x)).real == [
        "backbone.stages.0.downsample.layer"
    ]


@pytest.mark.parametrize("time_steps", [1, 2])
def test_meta_spikeformer_with_integers(time_steps):
    model = trained(
        MetaSpikeFormer, arch=ARCH, time_steps=time_steps, neuron_cfg=NEURONS["NI-LIF"],
        attn_init_size=(48, 64), lively=False,
    )  # fmt: skip
    other, _ = unrolled_of(model)
    x = torch.randn(2, 3, 48, 64)
    check = check_unrolled(model, other, lambda m: m(x))
    assert check.worst < 1e-3
    pointwise = [
        f"stages.{s}.blocks.{b}.mixer.1.weights.1" for s, b in [(0, 0), (1, 0), (2, 0), (2, 1)]
    ]
    assert check.real == ["stages.0.downsample.layer", *pointwise]  # SepConv's second 1x1


def synops_by_kind(report):
    total = {}
    for row in report.layers:
        total[row.kind] = total.get(row.kind, 0) + sum(row.synops)
    return total


@pytest.mark.parametrize("time_steps", [1, 2])
@pytest.mark.parametrize("borders", ["formula", "exact"])
@pytest.mark.parametrize("neuron", NEURONS)
def test_energy_is_the_same_to_the_operation(neuron, borders, time_steps):
    from mmspike.energy import Conventions

    model = trained(ESpikeFormer, arch=ARCH, time_steps=time_steps, neuron_cfg=NEURONS[neuron])
    other, _ = unrolled_of(model)
    x = torch.randn(2, 3, 48, 64)
    check = check_unrolled(model, other, lambda m: m(x))
    assert check.worst == 0.0
    conventions = Conventions(borders=borders)
    a, b = (measure(m, [x], conventions) for m in (model, other))
    assert synops_by_kind(a) == pytest.approx(synops_by_kind(b), rel=1e-12)
    assert a.total["synops"] == pytest.approx(b.total["synops"], rel=1e-12)
    assert a.total["synops"] > 1e5
    assert a.total["energy_mj"] == pytest.approx(b.total["energy_mj"], rel=1e-9)
    assert a.total["ann_energy_mj"] == pytest.approx(b.total["ann_energy_mj"], rel=1e-9)
    assert a.total["macs"] == pytest.approx(b.total["macs"], rel=1e-9)
    levels = NEURONS[neuron]["levels"]
    assert b.time_steps == levels * a.time_steps
    assert [sum(r.spikes) for r in a.neurons] == [sum(r.spikes) for r in b.neurons]


def test_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="has no integer neurons"):
        unroll(MetaSpikeFormer(ARCH))
    model = ESpikeFormer(ARCH)
    switch_to_deploy(model)
    with pytest.raises(ValueError, match="is folded already"):
        unroll(model)
    model = ESpikeFormer(ARCH)
    unroll(model)
    with pytest.raises(ValueError, match="is unrolled already"):
        unroll(model)


@pytest.mark.parametrize("backbone", [ESpikeFormer, MetaSpikeFormer])
def test_refuses_attention_that_averages_and_changes_nothing(backbone):
    model = backbone(ARCH, attn_scale=None, neuron_cfg=NEURONS["NI-LIF"]).eval()
    before = {name: type(m) for name, m in model.named_modules()}
    with pytest.raises(ValueError, match=r"stages.3.blocks.0.mixer averages .*attn_scale=None"):
        unroll(model)
    assert {name: type(m) for name, m in model.named_modules()} == before


def test_states_of_the_forms_are_told_apart():
    model = trained(ESpikeFormer, arch=ARCH, steps=1)
    other, _ = unrolled_of(model)
    folded = copy.deepcopy(model)
    switch_to_deploy(folded, lay_out=False)
    for a, b in ((model, other), (other, model), (folded, other), (other, folded)):
        with pytest.raises(FormError):
            a.load_state_dict(b.state_dict(), strict=False)
    twin, _ = unrolled_of(trained(ESpikeFormer, arch=ARCH, steps=2))
    twin.load_state_dict(other.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(twin(x), other(x), strict=True))


def test_reports_tell_steps_from_frames():
    from mmspike.energy.table import format_report

    model = trained(ESpikeFormer, arch=ARCH, time_steps=2, neuron_cfg=NEURONS["NI-LIF"])
    other, _ = unrolled_of(model)
    x = torch.randn(1, 3, 32, 32)
    a, b = (measure(m, [x]) for m in (model, other))
    assert (a.time_steps, a.levels, a.frames) == (2, 4, 1)
    assert (b.time_steps, b.levels, b.frames) == (8, 1, 4)
    assert "T = 2, integers of up to D = 4" in format_report(a)
    assert "T x D = 2 x 4 binary frames" in format_report(b)
    assert a.firing_rate == pytest.approx(4 * b.firing_rate)


def test_weights_of_another_number_of_frames_are_refused():
    four, two = (
        trained(ESpikeFormer, arch=ARCH, steps=1, neuron_cfg=dict(NEURONS["NI-LIF"], levels=d))
        for d in (4, 2)
    )
    unroll(four)
    unroll(two)
    with pytest.raises(FormError, match="to 4 frames of n / D, the model is unrolled to 2 frames"):
        two.load_state_dict(four.state_dict(), strict=False)


@pytest.mark.parametrize("time_steps", [1, 2])
def test_energy_of_meta_spikeformer_is_the_same(time_steps):
    """The second 1x1 convolution of ``SepConv`` reads real values: once a step in both."""
    model = trained(
        MetaSpikeFormer, arch=ARCH, time_steps=time_steps, neuron_cfg=NEURONS["NI-LIF"],
        attn_init_size=(48, 64), lively=False,
    )  # fmt: skip
    other, _ = unrolled_of(model)
    x = torch.randn(1, 3, 48, 64)
    a, b = (measure(m, [x]) for m in (model, other))
    assert a.total["real_macs"] == pytest.approx(b.total["real_macs"])
    assert a.total["energy_mj"] == pytest.approx(b.total["energy_mj"], rel=1e-3)  # ties
    assert a.total["ann_energy_mj"] == pytest.approx(b.total["ann_energy_mj"], rel=1e-9)


def test_says_that_its_neurons_are_not_the_published_ones():
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        ESpikeFormer(ARCH)
        assert not any("its neurons" in text for text in said)
        ESpikeFormer(ARCH, neuron_cfg=dict(type="mmspike.LIF"))
    finally:
        logger.removeHandler(handler)
    assert any("its neurons are LIF" in text for text in said)


@pytest.mark.parametrize("host", ["seg", "det"])
@pytest.mark.parametrize("time_steps", [1, 2])
def test_whole_models_predict_the_same(host, time_steps):
    helpers = {"seg": seg, "det": det}[host]
    cfg = helpers.small_config(time_steps)
    cfg.model.neuron_cfg = dict(type="mmspike.IntegerLIF", levels=4)
    model = helpers.build(cfg)
    batch = helpers.make_batch(model, size=(64, 96))
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d):
            m.momentum = None
    model.train()
    with torch.no_grad():
        model.loss(batch["inputs"], batch["data_samples"])
    model.eval().double()  # a network of random weights makes much of one integer on a tie
    other, report = unrolled_of(model)
    assert report.attentions == 8
    with torch.no_grad():
        maps, frames = (m.extract_feat(batch["inputs"].double()) for m in (model, other))
        if host == "seg":
            ours, theirs = (m.decode_head(maps) for m in (model, other))
        else:
            ours, theirs = (
                torch.cat([y.flatten() for y in m.rpn_head(maps)[0]]) for m in (model, other)
            )
            rois = torch.tensor([[0, 5.0, 5, 40, 50], [1, 10, 3, 60, 60]]).double()
            for head in ("_bbox_forward", "_mask_forward"):
                a, b = (
                    getattr(m.roi_head, head)([y.transpose(0, 1) for y in maps], rois)
                    for m in (model, other)
                )
                key = "cls_score" if head == "_bbox_forward" else "mask_preds"
                torch.testing.assert_close(a[key], b[key], atol=1e-4, rtol=1e-3)
    for a, b in zip(maps, frames, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    assert ours.std() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
