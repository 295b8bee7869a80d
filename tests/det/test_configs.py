"""Every detection config builds and runs in all three modes."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based.neuron import IFNode
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike.energy import measure_firing_rates
from mmspike.fused.cpu import convolution
from mmspike.native import conv as kernels
from mmspike.neurons import LIF, AtRest
from tests.conftest import ROOT
from tests.det.helpers import build, make_batch, read_config, small_config

CONFIGS = sorted(f"mask_rcnn/{p.name}" for p in (ROOT / "configs/mask_rcnn").glob("*.py"))


def check_all_modes(model, cfg):
    bbox_head, mask_head = cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head
    num_classes = bbox_head.num_classes
    batch = make_batch(model, num_classes=num_classes)
    losses = model.train()(**batch, mode="loss")
    total = sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k)
    assert set(losses) >= {
        "loss_rpn_cls",
        "loss_rpn_bbox",
        "loss_cls",
        "loss_bbox",
        "loss_mask",
    }
    assert torch.isfinite(total)
    total.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    for m in model.modules():  # statistics of this batch, so that evaluation has something to find
        if isinstance(m, _BatchNorm):
            m.momentum = 1.0
    with torch.no_grad():
        model(**batch, mode="loss")
        model.eval()
        outs = model(**batch, mode="tensor")
        results = model(**batch, mode="predict")
    cls_score, bbox_pred, mask_preds = outs[-1]
    assert cls_score.shape[1:] == (num_classes + 1,)
    assert bbox_pred.shape[1:] == (4 * (1 if bbox_head.reg_class_agnostic else num_classes),)
    mask_classes = 1 if mask_head.get("class_agnostic") else num_classes
    assert mask_preds.shape[1:] == (mask_classes, 28, 28)
    for result in results:
        found = result.pred_instances
        assert len(found.bboxes) == len(found.scores) == len(found.labels) == len(found.masks)
        assert found.masks.shape[1:] == (96, 128)
    assert any(len(r.pred_instances) for r in results)


@pytest.mark.parametrize("name", CONFIGS)
def test_builds_and_runs_loss_tensor_and_predict(name):
    cfg = read_config(name, **{"model.test_cfg.rcnn.score_thr": 0.0})
    cfg.model.test_cfg.rcnn.max_per_img = 5
    cfg.model.test_cfg.rpn.update(nms_pre=100, max_per_img=20)
    cfg.model.train_cfg.rpn_proposal.update(nms_pre=200, max_per_img=50)
    model = build(cfg)
    check_all_modes(model, cfg)


def test_parameters_with_the_55m_backbone_are_those_of_the_published_detector():
    model = build(read_config("mask_rcnn_metaspike-55m_coco.py"))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(75.0e6, rel=0.01)


def test_variants_differ_only_in_what_their_name_says():
    base = read_config("mask_rcnn_metaspike_coco.py")
    assert base.model.backbone.arch == "15M"
    assert base.train_cfg.max_epochs == base.param_scheduler[1].end == 12
    t4 = read_config("mask_rcnn_metaspike_t4_coco.py")
    assert t4.model.backbone.time_steps == 4
    assert t4.train_cfg.max_epochs == t4.param_scheduler[1].end == 8
    t4.model.backbone.time_steps = 1
    assert t4.model.to_dict() == base.model.to_dict()


@pytest.mark.parametrize("time_steps", [1, 4])
def test_neck_and_heads_are_alive_at_the_first_step(time_steps):
    model = build(small_config(time_steps)).train()
    batch = make_batch(model)
    rates = measure_firing_rates(model, lambda: model(**batch, mode="loss"))
    rates = {k: v for k, v in rates.items() if not k.startswith("backbone")}
    assert len(rates) == 16
    assert all(0.02 <= rate <= 0.5 for rate in rates.values()), rates


@pytest.mark.parametrize("time_steps", [1, 3])
def test_every_parameter_gets_a_gradient(time_steps):
    model = build(small_config(time_steps)).train()
    losses = model(**make_batch(model), mode="loss")
    sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("cls", ["SpikeMaskRCNN", "SpikeFasterRCNN"])
def test_one_key_sets_the_neuron_of_all_parts(cls):
    cfg = small_config(**{"model.type": f"mmspike.det.{cls}"})
    if cls == "SpikeFasterRCNN":
        del cfg.model.roi_head.mask_head, cfg.model.roi_head.mask_roi_extractor
    usual = build(cfg)
    places = {n for n, m in usual.named_modules() if type(m) is LIF}
    assert len(places) > 80
    cfg.model.neuron_cfg = dict(type="IFNode", v_threshold=0.7)
    neurons = {n: m.node for n, m in build(cfg).named_modules() if type(m) is AtRest}
    assert set(neurons) == places
    thresholds = {0.7: 0, 0.5: 0}
    for neuron in neurons.values():
        assert type(neuron) is IFNode
        thresholds[neuron.v_threshold] += 1
    assert thresholds[0.5] == 8  # behind the attention
    cfg.model.rpn_head.neuron_cfg = dict(type="ReLU")  # what a part names itself stays
    twin = build(cfg)
    assert {type(m) for n, m in twin.named_modules() if n in places} == {AtRest, nn.ReLU}
    assert type(twin.rpn_head.neuron) is nn.ReLU


@pytest.mark.parametrize("time_steps", [1, 2])
def test_winograd_leaves_the_gradients_of_the_whole_detector(time_steps, monkeypatch):
    model = build(small_config(time_steps)).train()
    losses = model(**make_batch(model), mode="loss")
    total = sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k)
    kernel, calls, grads = kernels.grad_input, [], []
    monkeypatch.setattr(kernels, "grad_input", lambda *a: calls.append(a) or kernel(*a))
    for least in (10**9, 1):
        monkeypatch.setattr(convolution, "WINOGRAD_PIXELS", least)
        model.zero_grad()
        total.backward(retain_graph=True)
        grads.append({n: p.grad.double() for n, p in model.named_parameters()})
    assert calls
    plain, winograd = (torch.cat([g.flatten() for g in grad.values()]) for grad in grads)
    assert (winograd - plain).norm() < 1e-5 * plain.norm()
    for name, expected in grads[0].items():  # those in front of a norm are 0 but for rounding
        error = (grads[1][name] - expected).norm()
        assert error < 1e-4 * expected.norm() + 1e-7 * plain.norm(), name


@pytest.mark.parametrize("time_steps", [1, 2])
def test_predictions_do_not_depend_on_the_batch_or_earlier_images(time_steps):
    cfg = small_config(time_steps, **{"model.test_cfg.rcnn.score_thr": 0.0})
    model = build(cfg).eval()
    batch = make_batch(model)
    with torch.no_grad():
        both = model(**batch, mode="predict")
        for i in (1, 0):
            alone = model(batch["inputs"][i : i + 1], batch["data_samples"][i : i + 1], "predict")
            expected, actual = both[i].pred_instances, alone[0].pred_instances
            torch.testing.assert_close(actual.scores, expected.scores, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(actual.bboxes, expected.bboxes, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("boxes_per_image", [(0, 2), (0, 0)])
def test_images_without_objects_train(boxes_per_image):
    model = build(small_config(2)).train()
    losses = model(**make_batch(model, boxes_per_image=boxes_per_image), mode="loss")
    total = sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k)
    total.backward()
    assert torch.isfinite(total)
    tensors = [*model.parameters(), *model.buffers()]
    assert all(torch.isfinite(t).all() for t in tensors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model.rpn_head.anchor_generator.strides": [4, 8, 16, 32, 128]},
            r"rpn_head.anchor_generator.strides=\[4, 8, 16, 32, 128\] must be the neck's strides",
        ),
        (
            {"model.roi_head.bbox_roi_extractor.featmap_strides": [4, 8, 16, 16]},
            r"bbox_roi_extractor.featmap_strides=\[4, 8, 16, 16\] must be the first of the neck's",
        ),
        (
            {"model.roi_head.mask_roi_extractor.featmap_strides": [8, 16]},
            r"mask_roi_extractor.featmap_strides=\[8, 16\] must be the first of the neck's",
        ),
        (
            {"model.neck.in_strides": [4, 8, 16, 32]},
            r"neck.in_strides=\[4, 8, 16, 32\] must be the backbone's strides: \[4, 8, 16, 16\]",
        ),
        (
            {"model.backbone.out_indices": (0, 1, 2, 3)},
            r"must be the backbone's strides: \[2, 4, 8, 16\]",
        ),
        ({"model.neck.in_channels": [32, 64, 128, 181]}, "must be the backbone's channels"),
        ({"model.rpn_head.in_channels": 32}, "rpn_head.in_channels=32 must be out_channels: 64"),
        ({"model.roi_head.mask_head.in_channels": 32}, "mask_head.in_channels=32 must be"),
        (
            {"model.roi_head.mask_roi_extractor.out_channels": 32},
            "mask_roi_extractor.out_channels=32 must be the neck's out_channels: 64",
        ),
    ],
)
def test_parts_that_disagree_are_an_error_when_the_model_is_built(options, message):
    with pytest.raises(ValueError, match=message):
        build(small_config(**options))


def test_an_ordinary_neck_on_maps_of_equal_strides_is_an_error_when_the_model_is_built():
    cfg = read_config("mask_rcnn_metaspike_coco.py", **{"model.backbone.decode": "mean"})
    cfg.model.neck = dict(type="FPN", in_channels=[64, 128, 256, 360], out_channels=256, num_outs=5)
    with pytest.raises(ValueError, match=r"strides \[4, 8, 16, 16\], but the neck expects"):
        build(cfg)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("time_steps", [1, 2])
def test_features_and_heads_run_under_autocast(dtype, time_steps):
    model = build(small_config(time_steps)).train()
    batch = make_batch(model)
    rois = torch.tensor([[0, 4, 4, 60, 70], [1, 10, 8, 50, 40]]).float()
    with torch.autocast("cpu", dtype=dtype):
        feats = model.extract_feat(batch["inputs"])
        scores, _ = model.rpn_head(feats)
        head = model.roi_head
        maps = tuple(x.transpose(0, 1) for x in feats)
        logits = head._bbox_forward(maps, rois)["cls_score"]
        masks = head._mask_forward(maps, rois)["mask_preds"]
    total = sum(x.float().pow(2).mean() for x in (*scores, logits, masks))
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
