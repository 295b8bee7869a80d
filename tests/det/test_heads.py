"""The spiking heads, each alone."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import nn

from mmspike.det import (
    SpikeConvFCBBoxHead,
    SpikeFCNMaskHead,
    SpikeRetinaHead,
    SpikeRPNHead,
    SpikeShared2FCBBoxHead,
    SpikeSingleRoIExtractor,
)
from mmspike.layers.conv import SpikeLayer

ROI_LAYER = dict(type="RoIAlign", output_size=7, sampling_ratio=0)
FORGETFUL = dict(type="mmspike.LIF", tau=1.0 + 1e-6)  # one step tells the next nothing


def kinds(module):
    return [type(m) for m in module.modules()]


def test_roi_features_of_each_step_are_mmdets():
    kwargs = dict(roi_layer=ROI_LAYER, out_channels=4, featmap_strides=[4, 8], finest_scale=16)
    spiking, plain = SpikeSingleRoIExtractor(**kwargs), SingleRoIExtractor(**kwargs)
    feats = [torch.randn(2, 3, 4, 16, 24), torch.randn(2, 3, 4, 8, 12)]  # [B, T, C, H, W]
    rois = torch.tensor([[0, 4, 4, 20, 24], [1, 0, 0, 60, 60], [1, 8, 8, 40, 20]]).float()
    out = spiking(feats, rois)
    assert out.shape == (3, 3, 4, 7, 7)
    for t in range(3):
        torch.testing.assert_close(out[:, t], plain([f[:, t].contiguous() for f in feats], rois))
    assert spiking.out_channels == 4
    assert spiking(feats, rois[:0]).shape == (0, 3, 4, 7, 7)


@pytest.mark.parametrize("time_steps", [1, 2])
def test_roi_features_do_not_depend_on_how_maps_lie_in_memory(time_steps):
    extractor = SpikeSingleRoIExtractor(
        roi_layer=ROI_LAYER, out_channels=4, featmap_strides=[4, 8], finest_scale=16
    )
    wide = [torch.randn(2, time_steps, 4, 32, 48), torch.randn(2, time_steps, 4, 16, 24)]
    feats = [f[..., ::2, ::2] for f in wide]  # as the neck subsamples
    rois = torch.tensor([[0, 4, 4, 20, 24], [1, 0, 0, 60, 60]]).float()
    expected = extractor([f.contiguous() for f in feats], rois)
    assert torch.equal(extractor(feats, rois), expected)


def test_roi_extractor_refuses_other_channels():
    extractor = SpikeSingleRoIExtractor(roi_layer=ROI_LAYER, out_channels=8, featmap_strides=[4])
    with pytest.raises(ValueError, match="out_channels=8, but the maps have 4 channels"):
        extractor([torch.randn(1, 2, 4, 8, 8)], torch.zeros(1, 5))


@pytest.mark.parametrize(
    "branches",
    [
        dict(num_shared_fcs=2),
        dict(num_shared_convs=2, num_shared_fcs=1),
        dict(num_shared_convs=1, num_cls_fcs=1, num_reg_convs=1),
        dict(num_cls_convs=1, num_reg_fcs=2),
        dict(num_shared_convs=1, num_cls_convs=1, num_reg_convs=1, with_avg_pool=True),
    ],
)
@pytest.mark.parametrize("time_steps", [1, 3])
def test_box_heads_of_any_branches(branches, time_steps):
    head = SpikeConvFCBBoxHead(
        in_channels=6, num_classes=4, conv_out_channels=8, fc_out_channels=10, **branches
    )
    assert nn.ReLU not in kinds(head)
    cls_score, bbox_pred = head(2 * torch.randn(5, time_steps, 6, 7, 7))
    assert cls_score.shape == (5, 5)
    assert bbox_pred.shape == (5, 16)
    (cls_score.sum() + bbox_pred.sum()).backward()
    assert [n for n, p in head.named_parameters() if p.grad is None] == []


def test_shared_2fc_has_a_norm_between_every_two_neurons():
    head = SpikeShared2FCBBoxHead(in_channels=6, num_classes=4, fc_out_channels=10)
    assert [type(fc) for fc in head.shared_fcs] == [SpikeLayer, SpikeLayer]
    assert all(isinstance(fc.norm, nn.BatchNorm1d) for fc in head.shared_fcs)
    assert head.fc_cls.in_features == head.fc_reg.in_features == 10


@pytest.mark.parametrize("norm_cfg", [dict(type="BN"), dict(type="GN", num_groups=2)])
def test_box_head_averages_the_logits_of_the_steps(norm_cfg):
    head = SpikeShared2FCBBoxHead(
        in_channels=6, num_classes=4, fc_out_channels=10, neuron_cfg=FORGETFUL, norm_cfg=norm_cfg
    ).eval()
    x = 3 * torch.randn(5, 4, 6, 7, 7)
    per_step = zip(*[head(x[:, t : t + 1]) for t in range(4)], strict=True)
    for whole, steps in zip(head(x), per_step, strict=True):
        torch.testing.assert_close(whole, torch.stack(steps).mean(0))


@pytest.mark.parametrize("upsample", ["deconv", "nearest", "bilinear", None])
def test_mask_head_averages_the_logits_of_the_steps(upsample):
    cfg = dict(type=upsample, scale_factor=2)
    head = SpikeFCNMaskHead(
        num_convs=2,
        in_channels=6,
        conv_out_channels=8,
        num_classes=3,
        upsample_cfg=cfg,
        neuron_cfg=FORGETFUL,
    )
    head.init_weights()
    assert nn.ReLU not in kinds(head)
    head.eval()
    x = 3 * torch.randn(5, 4, 6, 14, 14)
    out = head(x)
    assert out.shape == (5, 3, *((14, 14) if upsample is None else (28, 28)))
    steps = [head(x[:, t : t + 1]) for t in range(4)]
    torch.testing.assert_close(out, torch.stack(steps).mean(0))
    assert head(x[:0]).shape[0] == 0


@pytest.mark.parametrize("part", ["with_cls", "with_reg"])
def test_box_head_without_one_of_its_parts(part):
    head = SpikeShared2FCBBoxHead(in_channels=6, num_classes=4, fc_out_channels=10, **{part: False})
    head.init_weights()
    outs = head(torch.randn(5, 2, 6, 7, 7))
    assert [out is None for out in outs] == [part == "with_cls", part == "with_reg"]


def test_mask_head_refuses_carafe():
    with pytest.raises(ValueError, match="carafe"):
        SpikeFCNMaskHead(upsample_cfg=dict(type="carafe", scale_factor=2, up_kernel=5, up_group=1))


@pytest.mark.parametrize("num_convs", [1, 2])
def test_rpn_predicts_per_level_and_averages_the_steps(num_convs):
    head = SpikeRPNHead(
        in_channels=6,
        feat_channels=8,
        num_convs=num_convs,
        neuron_cfg=FORGETFUL,
        anchor_generator=dict(type="AnchorGenerator", scales=[8], ratios=[0.5, 1], strides=[4, 8]),
    )
    assert nn.ReLU not in kinds(head)
    assert len(head.rpn_conv) == num_convs
    head.eval()
    xs = [3 * torch.randn(3, 2, 6, 8, 10), 3 * torch.randn(3, 2, 6, 4, 5)]
    scores, deltas = head(xs)
    assert [s.shape for s in scores] == [(2, 2, 8, 10), (2, 2, 4, 5)]
    assert [d.shape for d in deltas] == [(2, 8, 8, 10), (2, 8, 4, 5)]
    steps = [head([x[t : t + 1] for x in xs])[0] for t in range(3)]
    for level, score in enumerate(scores):
        torch.testing.assert_close(score, torch.stack([s[level] for s in steps]).mean(0))


def retina_head(**kwargs):
    anchors = dict(type="AnchorGenerator", scales=[8], ratios=[0.5, 1], strides=[4, 8])
    defaults = dict(num_classes=3, in_channels=6, feat_channels=8, anchor_generator=anchors)
    return SpikeRetinaHead(**{**defaults, **kwargs})


@pytest.mark.parametrize("norm_cfg", [None, dict(type="GN", num_groups=2)])
@pytest.mark.parametrize("stacked_convs", [0, 1, 3])
def test_retina_head_predicts_per_level_and_averages_the_steps(stacked_convs, norm_cfg):
    head = retina_head(
        stacked_convs=stacked_convs,
        neuron_cfg=FORGETFUL,
        norm_cfg=norm_cfg,
        **({"feat_channels": 6} if stacked_convs == 0 else {}),
    )
    assert nn.ReLU not in kinds(head)
    assert len(head.cls_convs) == len(head.reg_convs) == stacked_convs
    xs = [3 * torch.randn(3, 2, 6, 8, 10), 3 * torch.randn(3, 2, 6, 4, 5)]
    head.init_weights()
    torch.nn.init.normal_(head.retina_cls.weight)
    for layer in (*head.cls_convs, *head.reg_convs):
        layer.norm.momentum = 1.0
    head.train()(xs)  # norms see what they normalise
    head.eval()
    scores, deltas = head(xs)
    assert [s.shape for s in scores] == [(2, 6, 8, 10), (2, 6, 4, 5)]
    assert [d.shape for d in deltas] == [(2, 8, 8, 10), (2, 8, 4, 5)]
    steps = [head([x[t : t + 1] for x in xs])[0] for t in range(3)]
    for level, score in enumerate(scores):
        assert score.std() > 0.1
        torch.testing.assert_close(score, torch.stack([s[level] for s in steps]).mean(0))
        torch.testing.assert_close(score, head.forward_single(xs[level])[0])


def test_retina_head_trains_on_the_statistics_that_it_is_tested_with():
    head = retina_head(stacked_convs=2).train()
    xs = [2 * torch.randn(2, 2, 6, 16, 16) + 1, torch.randn(2, 2, 6, 8, 8)]
    for layer in (*head.cls_convs, *head.reg_convs):
        layer.norm.momentum = 1.0
    trained = head(xs)
    head.eval()
    for outs, expected in zip(head(xs), trained, strict=True):
        for a, b in zip(outs, expected, strict=True):
            off = (a - b).abs() > 1e-2 * b.abs().max()  # rounding moves a spike now and then
            assert off.double().mean() < 0.1
