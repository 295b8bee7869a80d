"""The detectors of the folders in configs/: training, prediction, energy, deployed, fused."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike import fused
from mmspike.deploy import switch_to_deploy
from mmspike.energy import measure, measure_firing_rates
from mmspike.engine.configs import as_list
from mmspike.engine.inputs import estimate_norms, noise_batch
from mmspike.native import library
from tests.conftest import ROOT
from tests.det.helpers import build, make_batch, read_config

SPIKING = ("faster_rcnn", "retinanet", "cascade_rcnn")
STOCK = ("rtmdet", "dino")
SIZE = (64, 64)
WIDTHS = [16, 32, 64, 96]
LOSSES = {
    "faster_rcnn": {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"},
    "retinanet": {"loss_cls", "loss_bbox"},
    "cascade_rcnn": {
        "loss_rpn_cls",
        *(f"s{i}.loss_{k}" for i in range(3) for k in ("cls", "bbox")),
    },
    "rtmdet": {"loss_cls", "loss_bbox"},
    "dino": {"enc_loss_cls", "loss_cls", "loss_bbox", "loss_iou", "dn_loss_cls"},
}
FULLY_CONNECTED = "the input is no map [T, B, C, H, W]"


def shapes_config(folder, time_steps=1):
    """The config on shapes of a folder, narrower, and predicting something from the start."""
    (file,) = (ROOT / "configs" / folder).glob("*_shapes-*.py")
    cfg = read_config(f"{folder}/{file.name}", **{"model.backbone.time_steps": time_steps})
    model = cfg.model
    model.backbone.arch = dict(embed_dims=WIDTHS, num_heads=2)
    model.backbone.attn_init_size = SIZE
    neck = model.neck[0] if isinstance(model.neck, list) else model.neck
    neck.in_channels = [WIDTHS[i - 1] for i in model.backbone.out_indices]
    test_cfg = model.test_cfg.get("rcnn", model.test_cfg)
    test_cfg.update(max_per_img=5, **({} if folder == "dino" else {"score_thr": 0.0}))
    if "rcnn" in folder:
        model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=50)
        model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
        for stage in as_list(model.train_cfg.rcnn):
            stage.sampler.num = 32
        for head in as_list(model.roi_head.bbox_head):
            head.fc_out_channels = 64
    return cfg


def boxes_batch(model, size=SIZE):
    """A batch of boxes without masks, as the configs load them."""
    batch = make_batch(model, size)
    for sample in batch["data_samples"]:
        del sample.gt_instances.masks
    return batch


def freshly_built(folder, time_steps=1):
    """The narrow model as a training starts it."""
    model = build(shapes_config(folder, time_steps))
    model.init_weights()
    return model.train()


def total_of(losses):
    return sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k)


def heads_of(model):
    """Names of the heads' modules, as they begin."""
    return tuple(f"{n}." for n in ("rpn_head", "roi_head", "bbox_head") if hasattr(model, n))


LEARNING = [("faster_rcnn", 1), ("retinanet", 2), ("cascade_rcnn", 2), ("rtmdet", 1), ("dino", 2)]


@pytest.mark.parametrize(("folder", "time_steps"), LEARNING)
def test_learns_and_predicts(folder, time_steps):
    model = freshly_built(folder, time_steps)
    batch = boxes_batch(model)
    before = overlaps(model, batch)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    history = []
    for _ in range(10 if folder == "rtmdet" else 6):
        losses = model(**batch, mode="loss")
        assert set(losses) >= LOSSES[folder]
        optimizer.zero_grad()
        total_of(losses).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        # those of boxes grow in two stages, while more RoIs are found to have one
        falling = total_of({k: v for k, v in losses.items() if "rcnn" not in folder or "cls" in k})
        history.append(falling.item())
    if folder == "rtmdet":  # its loss is weighted by the overlap, which grows
        assert overlaps(model, batch) > before + 0.1
    else:
        assert sum(history[-2:]) < 0.97 * sum(history[:2]), history
        overlaps(model, batch)


@torch.no_grad()
def overlaps(model, batch):
    """Mean IoU of the objects with the predictions nearest to them; these are looked at, too."""
    momenta = {m: m.momentum for m in model.modules() if isinstance(m, _BatchNorm)}
    for norm in momenta:  # statistics of this batch, so that evaluation has something to find
        norm.momentum = 1.0
    model.train()(**batch, mode="loss")
    results = model.eval()(**batch, mode="predict")
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    model.train()
    found = [r.pred_instances for r in results]
    for boxes in found:
        assert boxes.bboxes.shape == (len(boxes), 4)
        assert len(boxes) <= 5
        assert set(boxes.labels.tolist()) <= {0, 1, 2}
        assert ((boxes.scores >= 0) & (boxes.scores <= 1)).all()
        assert ((boxes.bboxes >= 0) & (boxes.bboxes <= 64)).all()
    assert torch.cat([boxes.scores for boxes in found]).std() > 0  # they vary
    truth = [s.gt_instances.bboxes for s in batch["data_samples"]]
    pairs = (bbox_overlaps(t, f.bboxes) for t, f in zip(truth, found, strict=True) if len(f))
    return torch.cat([pair.amax(1) for pair in pairs]).mean().item()


@pytest.mark.parametrize("folder", SPIKING)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trains_under_autocast(folder, dtype):
    model = freshly_built(folder, time_steps=2)
    with torch.autocast("cpu", dtype):
        total = total_of(model(**boxes_batch(model), mode="loss"))
    total.backward()
    assert total.dtype == torch.float32
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("time_steps", [3])
@pytest.mark.parametrize("folder", SPIKING)
def test_heads_are_alive_and_learn_at_the_first_step(folder, time_steps):
    model = freshly_built(folder, time_steps)
    batch = boxes_batch(model, (96, 128))
    losses = []
    rates = measure_firing_rates(model, lambda: losses.append(model(**batch, mode="loss")))
    rates = {k: v for k, v in rates.items() if k.startswith(heads_of(model))}
    assert len(rates) == {"faster_rcnn": 6, "retinanet": 6, "cascade_rcnn": 14}[folder]
    assert all(0.02 <= rate <= 0.5 for rate in rates.values()), rates
    total_of(losses[0]).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.fixture(scope="module", params=[1, 2], ids=["T=1", "T=2"])
def time_steps(request):
    return request.param


@pytest.fixture(scope="module", params=[*SPIKING, *STOCK])
def fitted(request, time_steps):
    """A model with norms that have seen an image, and the image."""
    cfg = shapes_config(request.param, time_steps)
    model, batch = build(cfg), noise_batch(cfg, SIZE)
    model.init_weights()
    model.eval()
    estimate_norms(model, [batch])
    return request.param, model, batch


@torch.no_grad()
def test_energy_is_counted_whole(fitted):
    folder, model, batch = fitted
    report = measure(model, [batch])
    # DINO's own weights are embeddings of the levels, which are added
    assert report.uncounted == (["(model)"] if folder == "dino" else [])
    assert report.time_steps == model.backbone.time_steps
    heads = [row for row in report.layers if row.name.startswith(heads_of(model))]
    kinds = {row.reads for row in heads}
    assert kinds == ({"spikes"} if folder in SPIKING else {"real values"})
    if folder == "retinanet":  # one set of weights, three levels of 8, 4 and 2 pixels
        conv = next(row for row in heads if row.name == "bbox_head.cls_convs.0.layer")
        assert conv.calls == 3
        assert conv.macs == (64 + 16 + 4) * 9 * 64 * 64
        logits = next(row for row in heads if row.name == "bbox_head.retina_cls")
        assert logits.macs == logits.executed == (64 + 16 + 4) * 9 * 64 * 6
    if folder == "cascade_rcnn":
        assert {row.name.split(".")[2] for row in heads if "roi" in row.name} == {"0", "1", "2"}


@torch.no_grad()
def test_deployed_it_gives_the_same(fitted):
    folder, model, batch = fitted
    deployed = copy.deepcopy(model)
    left = switch_to_deploy(deployed).norms_left
    assert all(not name.startswith("backbone") for name in left)
    assert left == [] or folder in STOCK
    data = model.data_preprocessor(batch)
    maps = model.backbone(data["inputs"])
    noise = [3 * torch.randn_like(x) for x in maps]  # spikes of a whole backbone amplify rounding
    outputs = []
    for m in (deployed, model):
        levels = m.neck(noise)
        if folder in SPIKING:
            head = getattr(m, "rpn_head", None) or m.bbox_head
            outputs.append(head([3 * x for x in levels]))
        else:
            outputs.append([levels])
    for a, b in zip(_flat(outputs[0]), _flat(outputs[1]), strict=True):
        assert a.shape == b.shape
        off = (a - b).abs() > 1e-3 * max(1.0, b.abs().max().item())
        assert off.double().mean() < 0.02
    (sample,) = deployed.test_step(batch)
    assert 0 < len(sample.pred_instances) <= 5


def _flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [y for part in outputs for y in _flat(part)]


@pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")
@pytest.mark.parametrize("training", [False, True])
def test_heads_run_fused(fitted, training):
    folder, model, batch = fitted
    model = copy.deepcopy(model).train(training)
    if training:
        batch = boxes_batch(model)
        report = fused.explain(model, batch, lambda m, b: m(**b, mode="loss"))
    else:
        with torch.no_grad():
            report = fused.explain(model, batch, lambda m, b: m.test_step(b))
    heads = {n: why for n, why in report.layers.items() if n.startswith(heads_of(model))}
    if folder in STOCK:
        assert heads == {}
    else:
        assert len(heads) == {"faster_rcnn": 3, "retinanet": 4, "cascade_rcnn": 7}[folder]
        plain = {n: why for n, why in heads.items() if why}
        assert set(plain.values()) <= {FULLY_CONNECTED}
        assert all("shared_fcs" in n for n in plain)
    assert list(report.plain.values()).count("there is no neuron before it") == 1  # the stem


@pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")
@pytest.mark.parametrize("folder", SPIKING)
def test_gradients_of_the_fast_path_are_those_of_the_plain_one(folder, time_steps):
    model = freshly_built(folder, time_steps)
    head = getattr(model, "rpn_head", None) or model.bbox_head
    parts = [model.neck, head]
    strides = model.backbone.out_strides
    maps = [
        3 * torch.randn(time_steps, 2, c, 64 // s, 64 // s)
        for c, s in zip(model.backbone.out_channels, strides, strict=True)
    ]
    rois = torch.tensor([[0, 4, 4, 40, 44], [1, 0, 8, 30, 60], [1, 20, 20, 60, 50.0]])

    def grads():
        inputs = [x.clone().requires_grad_() for x in maps]
        for part in (model.neck, model.roi_head if hasattr(model, "roi_head") else head, head):
            part.zero_grad()
        levels = model.neck(inputs)
        outs = _flat(head(levels))
        if hasattr(model, "roi_head"):
            extractors, heads = model.roi_head.bbox_roi_extractor, model.roi_head.bbox_head
            if folder == "faster_rcnn":
                extractors, heads = [extractors], [heads]
            firsts = [x.transpose(0, 1) for x in levels[:4]]
            for extract, stage in zip(extractors, heads, strict=True):
                outs += _flat(stage(extract(firsts, rois)))
                parts.append(stage)
        weights = [torch.linspace(-1, 1, y.numel()).view_as(y) for y in outs]
        sum((y * w).mean() for y, w in zip(outs, weights, strict=True)).backward()
        found = [x.grad for x in inputs]
        return outs, found + [p.grad for part in parts for p in part.parameters()]

    outs, fast = grads()
    with fused.disabled():
        expected, plain = grads()
    for a, b in zip(outs, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)
    assert any(g is not None and g.any() for g in plain)
    for a, b in zip(fast, plain, strict=False):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a - b).norm() < 1e-2 * b.norm() + 1e-5
