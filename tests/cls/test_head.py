"""The classifier against the published one's numbers, its losses by hand, its checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mmspike.backbones import MetaSpikeFormerClassifier
from mmspike.checkpoints import CheckpointError, load_pretrained, read_checkpoint
from mmspike.checkpoints.sources import sort_checkpoint
from mmspike.checkpoints.upstream import to_upstream_state_dict
from mmspike.cls import HardDistillation, SoftDistillation
from tests.backbones.test_parity import read_input
from tests.cls.helpers import arch_of, batch, build, classifier_cfg, write_published
from tests.conftest import ROOT

DISTILLED = dict(distillation=True)


@pytest.fixture(scope="module")
def published_file(golden, tmp_path_factory):
    return write_published(golden, tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def e_golden():
    with np.load(ROOT / "tests/data/espikeformer_tiny.npz") as file:
        return dict(file)


def pretrained(file):
    return dict(type="Pretrained", checkpoint=str(file))


@pytest.mark.parametrize("time_steps", [1, 4])
def test_a_distilled_published_checkpoint_gives_the_published_logits(
    golden, published_file, time_steps
):
    model = build(
        arch_of(golden), time_steps=time_steps, head=DISTILLED, init_cfg=pretrained(published_file)
    ).eval()
    with torch.no_grad():
        logits = model(read_input(golden, "64x96"))
    expected = torch.tensor(golden[f"out/64x96/T{time_steps}/logits"]).float()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_the_second_family_gives_its_published_logits(e_golden, tmp_path):
    file = write_published(e_golden, tmp_path)
    neuron = dict(type="mmspike.IntegerLIF", levels=4)
    options = dict(backbone="ESpikeFormer", neuron_cfg=neuron, init_cfg=pretrained(file))
    model = build(arch_of(e_golden), **options).eval()
    with torch.no_grad():
        logits = model(read_input(e_golden, "65x75"))
    expected = torch.tensor(e_golden["out/65x75/logits"]).float()
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_both_layers_are_read_in_training_and_averaged_in_evaluation(golden, published_file):
    model = build(arch_of(golden), head=DISTILLED, init_cfg=pretrained(published_file)).eval()
    with torch.no_grad():
        feats = model.extract_feat(read_input(golden, "64x96"))
        first, second = model.head.train()(feats)
        mean = model.head.eval()(feats)
    assert not torch.equal(first, second)
    torch.testing.assert_close(mean, (first + second) / 2)
    spikes = model.head.pre_logits(feats)
    torch.testing.assert_close(model.head.head(spikes), first)


def test_the_loss_is_half_of_each(golden, published_file):
    """0.5 CE(head, smoothed label) + 0.5 CE(head_kd, the teacher's label)."""
    model = build(arch_of(golden), head=DISTILLED, init_cfg=pretrained(published_file)).train()
    data = model.data_preprocessor(batch(), True)
    feats = model.extract_feat(data["inputs"])
    teacher = torch.randn(2, 10)
    losses = model.head.loss(feats, data["data_samples"], teacher_scores=teacher)
    first, second = (x.log_softmax(1) for x in model.head(feats))
    target = torch.full((2, 10), 0.1 / 10)
    target[range(2), [0, 1]] += 0.9
    by_hand = 0.5 * -(target * first).sum(1).mean()
    torch.testing.assert_close(losses["loss_cls"], by_hand)
    by_hand = 0.5 * -second[range(2), teacher.argmax(1)].mean()
    torch.testing.assert_close(losses["loss_distill"], by_hand)
    loss, logged = model.parse_losses(losses)
    torch.testing.assert_close(loss, losses["loss_cls"] + losses["loss_distill"])
    assert logged["loss"] == loss


def test_soft_distillation_is_the_divergence_of_softened_distributions():
    student, teacher = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    p, q = ((x / 3).softmax(1) for x in (teacher, student))
    expected = 9 * (p * (p / q).log()).sum() / 5
    torch.testing.assert_close(SoftDistillation(temperature=3)(student, teacher), expected)
    hard = F.cross_entropy(student, teacher.argmax(1))
    torch.testing.assert_close(HardDistillation()(student, teacher), hard)
    for options in (dict(alpha=1.5), dict(temperature=0)):
        with pytest.raises(ValueError, match=next(iter(options))):
            SoftDistillation(**options)


def test_a_checkpoint_of_ours_goes_back_to_the_published_names(golden, published_file, tmp_path):
    model = build(arch_of(golden), head=DISTILLED, init_cfg=pretrained(published_file)).eval()
    file = tmp_path / "ours.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {}}, file)
    source = sort_checkpoint(read_checkpoint(file))
    assert source.format == "mmspike classifier"
    back = to_upstream_state_dict(source.backbone) | source.heads
    expected = read_checkpoint(published_file).content["model"]
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[key], value) for key, value in expected.items())

    plain = MetaSpikeFormerClassifier(num_classes=10, distilled=True, arch=arch_of(golden)).eval()
    report = load_pretrained(plain, file)
    assert not report.ignored
    image = read_input(golden, "64x96")
    with torch.no_grad():
        torch.testing.assert_close(plain(image), model(image))
        other = build(arch_of(golden), head=DISTILLED, init_cfg=pretrained(file)).eval()
        torch.testing.assert_close(other(image), model(image), atol=0, rtol=0)


def test_what_does_not_fit_is_refused(golden, published_file):
    arch = arch_of(golden)
    init_cfg = pretrained(published_file)
    with pytest.raises(CheckpointError, match=r"set model\.head\.distillation=True"):
        build(arch, init_cfg=init_cfg)
    with pytest.raises(CheckpointError, match="set num_classes=10"):
        build(arch, num_classes=7, head=DISTILLED, init_cfg=init_cfg)
    cfg = classifier_cfg()
    cfg["head"]["in_channels"] = 24
    with pytest.raises(ValueError, match=r"head.in_channels=24 must be .*: 32"):
        MODELS.build(cfg)
    cfg = classifier_cfg()
    cfg["backbone"]["decode"] = "mean"
    with pytest.raises(ValueError, match=r"head \(SpikeClsHead\) reads sequences"):
        MODELS.build(cfg)
    with pytest.raises(ValueError, match=r"have \[4\] levels, the head's neuron has 1"):
        MODELS.build(classifier_cfg(backbone="ESpikeFormer"))
    with pytest.raises(ValueError, match="distill_loss is given, but distillation is False"):
        MODELS.build(classifier_cfg(head=dict(distill_loss=dict(type="mmspike.cls.X"))))
    model = build(head=DISTILLED)
    data = model.data_preprocessor(batch(), True)
    with pytest.raises(ValueError, match=r"set model.teacher"):
        model(**data, mode="loss")


def test_an_ordinary_head_reads_the_average_over_time():
    cfg = classifier_cfg(time_steps=2)
    cfg["backbone"]["decode"] = "mean"
    cfg["neck"] = dict(type="mmpretrain.GlobalAveragePooling")
    cfg["head"] = dict(type="mmpretrain.LinearClsHead", in_channels=32, num_classes=10)
    model = MODELS.build(cfg)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    del cfg["backbone"]["decode"]
    with pytest.raises(ValueError, match=r'decode="mean" averages them over time'):
        MODELS.build(cfg)
