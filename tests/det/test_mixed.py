"""Ordinary necks under spiking heads, the spiking neck under ordinary heads, and what misfits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike.energy import measure
from mmspike.engine.inputs import estimate_norms, noise_batch
from mmspike.layers.checks import expect_sequences_where_read
from tests.det.helpers import build, make_batch
from tests.det.test_detectors import SIZE, WIDTHS, boxes_batch, shapes_config, total_of

FPN = dict(type="FPN", norm_cfg=dict(type="BN"), act_cfg=None)


def per_step_fpn(folder, time_steps):
    """Spiking heads on mmdet's FPN, which sees every step as an image."""
    cfg = shapes_config(folder, time_steps)
    indices = (2, 4) if folder == "retinanet" else (1, 2, 4)
    cfg.model.backbone.out_indices = indices
    neck = dict(
        **FPN,
        in_channels=[WIDTHS[i - 1] for i in indices],
        out_channels=cfg.model.neck.out_channels,
        num_outs=cfg.model.neck.num_outs,
    )
    cfg.model.neck = dict(type="mmspike.PerStepNeck", neck=neck)
    return cfg


def spike_fpn_mean(folder, time_steps):
    """Mmdet's own heads on the spiking pyramid, averaged over time."""
    cfg = shapes_config(folder, time_steps)
    if folder == "rtmdet":
        cfg.model.backbone.update(out_indices=(2, 3, 4), decode=None)
        cfg.model.neck = dict(
            type="mmspike.SpikeFPN",
            in_channels=WIDTHS[1:],
            in_strides=[8, 16, 16],
            out_channels=cfg.model.bbox_head.in_channels,
            num_outs=3,
            decode="mean",
        )
        return cfg
    cfg.model.neck.decode = "mean"
    if folder == "retinanet":
        cfg.model.bbox_head.type = "RetinaHead"
    else:
        cfg.model.rpn_head.type = "RPNHead"
        roi = cfg.model.roi_head
        roi.type = "StandardRoIHead"
        roi.bbox_roi_extractor.type = "SingleRoIExtractor"
        roi.bbox_head.type = "Shared2FCBBoxHead"
    return cfg


COMBINATIONS = [
    (per_step_fpn, "faster_rcnn"),
    (per_step_fpn, "retinanet"),
    (spike_fpn_mean, "faster_rcnn"),
    (spike_fpn_mean, "retinanet"),
    (spike_fpn_mean, "rtmdet"),
]


@pytest.mark.parametrize("time_steps", [1, 2])
@pytest.mark.parametrize(("make", "folder"), COMBINATIONS)
def test_loss_gradient_and_prediction(make, folder, time_steps):
    model = build(make(folder, time_steps)).train()
    batch = boxes_batch(model)
    total = total_of(model(**batch, mode="loss"))
    assert torch.isfinite(total)
    total.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    first = model.backbone.stages[0].downsample.layer.weight.grad
    assert first.any()  # all the way down
    with torch.no_grad():
        results = model.eval()(**batch, mode="predict")
    assert any(len(r.pred_instances) for r in results)


@torch.no_grad()
@pytest.mark.parametrize("folder", ["faster_rcnn", "retinanet"])
def test_steps_of_an_ordinary_neck_do_not_mix(folder):
    model = build(per_step_fpn(folder, 3)).eval()
    widths = model.backbone.out_channels
    maps = [torch.randn(3, 2, c, n, n) for c, n in zip(widths, (16, 8, 4), strict=False)]
    whole = model.neck(maps)
    for t in range(3):
        for y, z in zip(whole, model.neck.neck([x[t] for x in maps]), strict=True):
            torch.testing.assert_close(y[t], z)
    with pytest.raises(ValueError, match=r"PerStepNeck takes maps \[T, B, C, H, W\], got shapes"):
        model.neck([x[0] for x in maps])


@pytest.mark.parametrize("time_steps", [1, 2])
def test_an_ordinary_neck_costs_energy_in_every_step(time_steps):
    cfg = per_step_fpn("retinanet", time_steps)
    model, batch = build(cfg).eval(), noise_batch(cfg, SIZE)
    estimate_norms(model, [batch])
    report = measure(model, [batch])
    assert report.uncounted == []
    assert {row.reads for row in report.layers if row.part == "neck"} == {"real values"}
    neck = report.parts["neck"]
    assert neck["energy_mj"] == pytest.approx(4.6e-9 * neck["macs"] * time_steps)


@torch.no_grad()
@pytest.mark.parametrize("time_steps", [1, 2])
@pytest.mark.parametrize("where", ["neck", "backbone"])
def test_rois_of_averaged_maps_are_read_where_they_lie(where, time_steps):
    """RoIAlign takes memory as if channels came first and no pixel were left out."""
    cfg = spike_fpn_mean("faster_rcnn", time_steps)
    if where == "backbone":
        cfg.model.neck = dict(**FPN, in_channels=[16, 32, 96], out_channels=64, num_outs=5)
        cfg.model.backbone.update(decode="mean", out_indices=(1, 2, 4))
    model = build(cfg).train()
    images = torch.randn(2, 3, 64, 64)
    for m in model.modules():  # norms see what they normalise
        if isinstance(m, _BatchNorm):
            m.momentum = 1.0
    model.extract_feat(images)
    levels = model.eval().extract_feat(images)
    rois = torch.tensor([[0, 4, 4, 20, 24], [1, 0, 0, 60, 60], [1, 3, 8, 62, 60.0]])
    extract = model.roi_head.bbox_roi_extractor
    expected = extract([x.clone(memory_format=torch.contiguous_format) for x in levels[:4]], rois)
    assert expected.std() > 0
    assert torch.equal(extract(levels[:4], rois), expected)


MISFITS = [
    (
        "retinanet",
        {"neck.decode": "mean"},
        r"bbox_head \(SpikeRetinaHead\) reads sequences \[T, B, C, H, W\], but the neck gives maps",
    ),
    (
        "faster_rcnn",
        {"rpn_head.type": "RPNHead"},
        r"rpn_head \(RPNHead\) reads maps .* but the neck gives sequences .*; neck.decode=\"mean\"",
    ),
    (
        "cascade_rcnn",
        {"roi_head.type": "CascadeRoIHead"},
        r"roi_head \(CascadeRoIHead\) reads maps \[B, C, H, W\], but the neck gives sequences",
    ),
    (
        "faster_rcnn",
        {"backbone.decode": "mean", "backbone.out_indices": (1, 2, 3, 4)},
        r"neck \(SpikeFPN\) reads sequences .* the backbone gives maps .*; leave backbone.decode",
    ),
    (
        "retinanet",
        {"bbox_head.anchor_generator.strides": [4, 8, 16]},
        r"bbox_head.anchor_generator.strides=\[4, 8, 16\] must be the neck's strides",
    ),
    (
        "retinanet",
        {"bbox_head.in_channels": 32},
        "bbox_head.in_channels=32 must be out_channels: 6",
    ),
    (
        "cascade_rcnn",
        {"roi_head.bbox_roi_extractor.featmap_strides": [8, 16]},
        r"bbox_roi_extractor.featmap_strides=\[8, 16\] must be the first of the neck's strides",
    ),
]


@pytest.mark.parametrize(("folder", "options", "message"), MISFITS)
def test_parts_that_misfit_are_an_error_when_the_model_is_built(folder, options, message):
    cfg = shapes_config(folder)
    cfg.merge_from_dict({f"model.{key}": value for key, value in options.items()})
    with pytest.raises(ValueError, match=message):
        build(cfg)


def test_a_head_of_one_s_own_is_not_judged():
    model = build(shapes_config("retinanet"))

    class Own(type(model.bbox_head)):
        takes_sequences = None

    model.neck.decode = "mean"
    with pytest.raises(ValueError, match="SpikeRetinaHead"):
        expect_sequences_where_read(model)
    model.bbox_head.__class__ = Own
    expect_sequences_where_read(model)


@pytest.mark.parametrize("decode", ["max", True, 1])
def test_the_neck_refuses_other_decodings(decode):
    cfg = shapes_config("retinanet")
    cfg.model.neck.decode = decode
    with pytest.raises(ValueError, match="SpikeFPN: decode must be None or 'mean', got"):
        build(cfg)


@pytest.mark.parametrize("time_steps", [1, 2])
def test_a_cascade_predicts_masks_too(time_steps):
    cfg = shapes_config("cascade_rcnn", time_steps)
    width = cfg.model.neck.out_channels
    roi_head = cfg.model.roi_head
    roi_head.mask_roi_extractor = copy.deepcopy(roi_head.bbox_roi_extractor)
    roi_head.mask_roi_extractor.roi_layer.output_size = 14
    roi_head.mask_head = dict(
        type="mmspike.det.SpikeFCNMaskHead",
        num_convs=1,
        in_channels=width,
        conv_out_channels=16,
        num_classes=3,
        loss_mask=dict(type="CrossEntropyLoss", use_mask=True),
    )
    for stage in cfg.model.train_cfg.rcnn:
        stage.mask_size = 28
    cfg.model.test_cfg.rcnn.mask_thr_binary = 0.5
    model = build(cfg).train()
    batch = make_batch(model, SIZE)
    losses = model(**batch, mode="loss")
    assert {f"s{i}.loss_mask" for i in range(3)} <= set(losses)
    total_of(losses).backward()
    assert all(head.conv_logits.weight.grad.any() for head in model.roi_head.mask_head)
    with torch.no_grad():
        results = model.eval()(**batch, mode="predict")
    masks = [r.pred_instances.masks for r in results]
    assert sum(map(len, masks))
    assert all(m.shape[1:] == SIZE for m in masks)
