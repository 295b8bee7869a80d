"""Heads of the hosts, deployed."""

from __future__ import annotations

import copy

import pytest
import torch

from mmspike.deploy import switch_to_deploy
from mmspike.engine.inputs import build_model, estimate_norms, noise_batch
from tests.energy.test_hosts import read


@pytest.fixture(scope="module", params=[1, 3], ids=["T=1", "T=3"])
def detector(request):
    cfg = read("mask_rcnn_metaspike_shapes.py", **{"backbone.time_steps": request.param})
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)
    torch.manual_seed(0)
    model, batch = build_model(cfg, None, "cpu"), noise_batch(cfg, (96, 128))
    estimate_norms(model, [batch])
    deployed = copy.deepcopy(model)
    report = switch_to_deploy(deployed)
    assert report.norms_left == []
    return model, deployed, batch, request.param


def assert_close(a, b):
    off = (a - b).abs() > 1e-3 * max(1.0, b.abs().max().item())
    assert off.double().mean() < 0.01
    assert a.shape == b.shape


@torch.no_grad()
def test_heads_give_the_same(detector):
    model, deployed, _, steps = detector
    width = model.neck.out_channels
    maps = [3 * torch.randn(steps, 2, width, n, n + 2) for n in (24, 12, 6, 3, 2)]
    for outs, expected in zip(deployed.rpn_head(maps), model.rpn_head(maps), strict=True):
        for a, b in zip(outs, expected, strict=True):
            assert_close(a, b)
    for name, size in (("bbox_head", 7), ("mask_head", 14)):
        rois = 3 * torch.randn(6, steps, width, size, size)
        heads = getattr(deployed.roi_head, name), getattr(model.roi_head, name)
        outs, expected = (head(rois) for head in heads)
        for a, b in zip(outs, expected, strict=True):
            assert_close(a, b)


@torch.no_grad()
def test_detector_predicts(detector):
    _, deployed, batch, _ = detector
    (sample,) = deployed.test_step(batch)
    assert len(sample.pred_instances) == 5
    assert sample.pred_instances.masks.shape == (5, 96, 128)


@torch.no_grad()
@pytest.mark.parametrize("time_steps", [1, 3])
def test_segmentor(time_steps):
    cfg = read("semantic_fpn_metaspike_shapes.py", **{"backbone.time_steps": time_steps})
    torch.manual_seed(0)
    model, batch = build_model(cfg, None, "cpu"), noise_batch(cfg, (64, 96))
    estimate_norms(model, [batch])
    deployed = copy.deepcopy(model)
    assert switch_to_deploy(deployed).norms_left == []
    sizes = zip(model.neck.in_channels, (16, 8, 4, 4), strict=True)
    maps = [3 * torch.randn(time_steps, 2, c, n, n) for c, n in sizes]
    levels, expected = deployed.neck(maps), model.neck(maps)
    for a, b in zip(levels, expected, strict=True):
        assert_close(a, b)
    assert_close(deployed.decode_head(expected), model.decode_head(expected))
    assert deployed.test_step(batch)[0].pred_sem_seg.shape == (64, 96)
