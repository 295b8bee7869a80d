"""The published recipes: optimizer, schedule, start and loss, against timm and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from torch import nn

from tests.cls.recipes import DISTILLED, DISTILLED_LONGER, FROM_SCRATCH, INTEGERS, recipe, small

pytest.importorskip("timm", reason="needs timm: make install brings it")
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import Lamb
from timm.scheduler import CosineLRScheduler

PEAK = {  # rate, batch of all GPUs, warm-up and length in epochs
    FROM_SCRATCH: (6e-4 * 1024 / 256, 1024, 10, 200),
    DISTILLED: (2e-5 * 192 / 256, 192, 2, 20),
    DISTILLED_LONGER: (2e-5 * 192 / 256, 192, 5, 50),
    INTEGERS: (6e-4 * 2048 / 256, 2048, 5, 200),
}
recipes = pytest.mark.parametrize("name", PEAK)


def network():
    """Layers of all kinds; weights so large that LAMB's trust ratio exceeds 1."""
    conv = nn.Conv2d(3, 6, 3)
    net = nn.Sequential(conv, nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.Linear(6, 4))
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=3.0)
    return net


def published_groups(net):
    """Parameters that decay, and those that do not: by their dimensions alone."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    return [
        dict(params=decayed, weight_decay=0.05),
        dict(params=others, weight_decay=0.0),
    ]


def give_gradients(net, step):
    """The same gradients to every network, of norms below and above 1."""
    generator = torch.Generator().manual_seed(step)
    for p in net.parameters():
        gradient = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        p.grad = gradient * (0.01 if step % 2 else 1.0)


@recipes
def test_optimizer_is_that_of_the_published_code_step_by_step(name):
    cfg = recipe(name)
    torch.manual_seed(1)
    mine = network()
    theirs = network()
    theirs.load_state_dict(mine.state_dict())
    wrapper = build_optim_wrapper(mine, cfg.optim_wrapper)
    reference = Lamb(published_groups(theirs), lr=PEAK[name][0], trust_clip=True)
    for step in range(8):
        before = mine[0].weight.clone()
        for net in (mine, theirs):
            give_gradients(net, step)
        wrapper.step()
        reference.step()
        assert not torch.equal(mine[0].weight, before)
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=0)


def lamb_by_hand(weights, gradients, lr, decay):
    """LAMB with its trust ratio clipped at 1, as the formulas have it, in double precision."""
    moments = [[torch.zeros_like(w), torch.zeros_like(w)] for w in weights]
    for t, grads in enumerate(gradients, 1):
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
        for i, g in enumerate(grads):
            g = g / max(1.0, norm)
            m, v = moments[i]
            m, v = moments[i] = [0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g]
            update = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-6)
            if weights[i].ndim > 1:
                update = update + decay * weights[i]
                update = update * min(1.0, float(weights[i].norm() / update.norm()))
            weights[i] = weights[i] - lr * update
    return weights


@pytest.mark.parametrize("scale", [0.01, 3.0], ids=["ratio below 1", "ratio clipped at 1"])
def test_optimizer_follows_the_formulas(scale):
    net = nn.Linear(5, 4).double()
    with torch.no_grad():
        for p in net.parameters():
            p.normal_().mul_(scale)
    start = [p.detach().clone() for p in net.parameters()]
    wrapper = build_optim_wrapper(net, recipe(FROM_SCRATCH).optim_wrapper)
    gradients = []
    for step in range(5):
        give_gradients(net, step)
        gradients.append([p.grad.clone() for p in net.parameters()])
        wrapper.step()
    expected = lamb_by_hand(start, gradients, lr=2.4e-3, decay=0.05)
    for p, q in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=1e-9, atol=1e-12)


@recipes
def test_only_what_has_one_dimension_does_not_decay(name):
    cfg = recipe(name)
    model = small(cfg)
    with torch.device("meta"):
        backbone = MODELS.build(model.backbone)
    wrapper = build_optim_wrapper(backbone, cfg.optim_wrapper)
    decayed, others = sorted(wrapper.optimizer.param_groups, key=lambda g: -g["weight_decay"])
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.05, 0.0)
    assert {p.ndim for p in others["params"]} == {1}
    assert min(p.ndim for p in decayed["params"]) == 4
    assert len(decayed["params"]) + len(others["params"]) == len(list(backbone.parameters()))


@recipes
def test_learning_rate_is_timms_iteration_by_iteration(name):
    cfg, (peak, batch, warmup, epochs) = recipe(name), PEAK[name]
    length = 3  # iterations of an epoch
    wrapper = build_optim_wrapper(nn.Linear(2, 2), cfg.optim_wrapper)
    common = dict(optimizer=wrapper, epoch_length=length)
    schedulers = [PARAM_SCHEDULERS.build(dict(s), default_args=common) for s in cfg.param_scheduler]
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    timms = CosineLRScheduler(
        reference,
        t_initial=(epochs - warmup) * length,
        warmup_t=warmup * length,
        warmup_prefix=True,
        warmup_lr_init=0.0,
        lr_min=1e-6,
        t_in_epochs=False,
    )
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.auto_scale_lr.base_batch_size == batch
    for iteration in range(epochs * length):
        timms.step_update(iteration)
        expected = reference.param_groups[0]["lr"]
        assert wrapper.get_lr()["lr"][0] == pytest.approx(expected, rel=1e-9, abs=1e-15), iteration
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    assert wrapper.get_lr()["lr"][0] == pytest.approx(1e-6, abs=1e-7)


@pytest.mark.parametrize("begin", [0, 4])
def test_warm_up_from_0_to_the_full_rate_of_each_group(begin):
    net = nn.Linear(2, 2)
    groups = [dict(params=[net.weight], lr=8.0), dict(params=[net.bias], lr=2.0)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    settings = dict(type="mmspike.WarmupLR", by_epoch=False, begin=begin, end=begin + 4)
    scheduler = PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=optimizer))
    rates = []
    for _ in range(begin + 7):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    rising = [[0.0, 0.0], [2.0, 0.5], [4.0, 1.0], [6.0, 1.5], [8.0, 2.0]]
    assert rates == [[8.0, 2.0]] * begin + [*rising, [8.0, 2.0], [8.0, 2.0]]


@pytest.mark.parametrize("name", [FROM_SCRATCH, INTEGERS])
def test_weights_start_as_the_published_ones(name):
    model = MODELS.build(small(recipe(name)))
    model.init_weights()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 60
    for norm in norms:
        assert bool((norm.weight == 1).all() and (norm.bias == 0).all())
    linear = model.head.head
    assert bool((linear.bias == 0).all())
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.3)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    for conv in convolutions:  # torch's own: uniform in +- 1 / sqrt(inputs)
        bound = 1 / math.sqrt(conv.weight[0].numel())
        assert 0.4 * bound < conv.weight.abs().max().item() <= bound


@pytest.fixture
def scores():
    """Maps, labels, and what a teacher says."""
    data = pytest.importorskip("mmpretrain.structures")
    labels = torch.tensor([0, 3, 3, 6, 1])
    maps = torch.randn(4, 5, 16, 3, 3) * 4
    samples = [data.DataSample().set_gt_label(int(label)) for label in labels]
    return maps, labels, samples, torch.randn(5, 7)


def smoothed(logits, labels, smoothing=0.1):
    """Cross entropy with smoothed labels, by hand."""
    logp = logits.double().log_softmax(1)
    target = torch.full_like(logp, smoothing / logp.size(1))
    target[torch.arange(len(labels)), labels] += 1 - smoothing
    return -(target * logp).sum(1).mean()


def test_loss_from_scratch_is_timms(scores):
    maps, labels, samples, _ = scores
    head = MODELS.build(small(recipe(FROM_SCRATCH)).head).train()
    nn.init.normal_(head.head.weight)
    logits = head((maps,))
    (loss,) = head.loss((maps,), samples).values()
    torch.testing.assert_close(loss, LabelSmoothingCrossEntropy(0.1)(logits, labels))
    torch.testing.assert_close(loss.double(), smoothed(logits, labels))


def test_loss_of_distillation_is_half_the_labels_and_half_the_teachers(scores):
    maps, labels, samples, teacher = scores
    head = MODELS.build(small(recipe(DISTILLED)).head).train()
    for linear in (head.head, head.head_kd):
        nn.init.normal_(linear.weight)
    first, second = head((maps,))
    loss = sum(head.loss((maps,), samples, teacher_scores=teacher).values())
    hard = -second.double().log_softmax(1)[torch.arange(5), teacher.argmax(1)].mean()
    torch.testing.assert_close(loss.double(), 0.5 * smoothed(first, labels) + 0.5 * hard)
    assert not torch.equal(teacher.argmax(1), labels)
    torch.testing.assert_close(head.eval()((maps,)), (first + second) / 2)
