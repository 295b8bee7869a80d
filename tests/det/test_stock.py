"""mmdet's own detectors on the backbone: maps and anchors lie at the same strides."""

from __future__ import annotations

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmspike.backbones import MetaSpikeFormer, arguments
from mmspike.det.detectors import check_detector
from mmspike.layers.checks import is_doubling

MMDET = Path(mmdet.__file__).parent / ".mim/configs"
STOCK = [
    "retinanet/retinanet_r50_fpn_1x_coco.py",
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
]
WIDTHS = [8, 16, 16, 24, 32]


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(arguments, "print_log", lambda text, *_, **__: lines.append(text))
    return lines


def build(name, type=None, **backbone):
    """A stock detector of small widths on the backbone; everything else as mmdet has it."""
    indices = backbone.get("out_indices", (1, 2, 4))
    cfg = Config.fromfile(MMDET / name).model
    cfg.backbone = dict(
        type="mmspike.MetaSpikeFormer",
        arch=dict(embed_dims=WIDTHS[1:], num_heads=4),
        decode="mean",
        **backbone,
    )
    cfg.neck.in_channels = [WIDTHS[i] for i in indices]
    cfg.type = type or cfg.type
    init_default_scope("mmdet")
    return MODELS.build(cfg).eval()


def strides_of(model):
    """Of the levels that the heads see, and those that anchors or points are made for."""
    with torch.no_grad():
        levels = model.extract_feat(torch.rand(1, 3, 256, 256))
    head = getattr(model, "rpn_head", None) or model.bbox_head
    declared = [max(s) for s in head.prior_generator.strides]
    return [256 // x.size(-1) for x in levels], declared


@pytest.mark.parametrize("name", STOCK)
def test_one_map_per_stride_is_the_default_and_meets_the_anchors(name, said):
    model = build(name)
    assert model.backbone.out_indices == (1, 2, 4)
    actual, declared = strides_of(model)
    assert actual == declared
    check_detector(model)
    assert said == []


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.parametrize("indices", [(1, 2, 3, 4), (1, 2, 3, 3), (1, 3)])
def test_others_are_named_when_the_model_is_built(name, indices, said):
    model = build(name, out_indices=indices)
    assert len(said) == 1
    assert f"out_indices={indices} give maps of strides" in said[0]
    assert "RetinaNet" in said[0]
    actual, declared = strides_of(model)
    assert actual != declared  # what the warning is about
    with pytest.raises(ValueError, match="but the neck expects each at twice the one before"):
        check_detector(model)


def test_our_detector_classes_refuse_maps_that_miss_the_anchors(said):
    name = STOCK[1]
    build(name, type="mmspike.det.SpikeFasterRCNN")
    with pytest.raises(ValueError, match=r"strides=\[4, 8, 16, 32, 64\] must be the neck's strid"):
        build(name, type="mmspike.det.SpikeFasterRCNN", out_indices=(0, 1, 2, 4))
    with pytest.raises(ValueError, match="but the neck expects"):
        build(name, type="mmspike.det.SpikeFasterRCNN", out_indices=(1, 2, 3, 4))


def test_segmentors_resize_and_need_no_warning(said):
    init_default_scope("mmseg")
    MetaSpikeFormer(out_indices=(1, 2, 3, 4), decode="mean")
    assert said == []


def test_sequences_keep_a_map_per_stage(said):
    backbone = MetaSpikeFormer()
    assert backbone.out_indices == (1, 2, 3, 4)
    assert not is_doubling(backbone.out_strides)
    assert said == []  # SpikeFPN merges maps of one stride
