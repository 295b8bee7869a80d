"""Energy of detectors and segmentors: whole models of the hosts, RoIs included."""

from __future__ import annotations

import warnings

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from torch import nn

from mmspike.deploy.folding import fold_rep_convs
from mmspike.energy import EnergyCounter, measure
from mmspike.engine.inputs import build_model, estimate_norms, noise_batch
from mmspike.layers.rep_conv import RepConv
from tests.conftest import ROOT


def read(name: str, **options) -> Config:
    cfg = Config.fromfile(ROOT / "configs" / name)
    cfg.merge_from_dict({f"model.{key}": value for key, value in options.items()})
    return cfg


def build(cfg: Config, size: tuple[int, int]):
    torch.manual_seed(0)
    model = build_model(cfg, None, "cpu")
    batch = noise_batch(cfg, size)
    estimate_norms(model, [batch])
    return model, batch


def fold_all(model: nn.Module) -> nn.Module:
    for name, module in list(model.named_modules()):
        if isinstance(module, RepConv):
            parent, _, key = name.rpartition(".")
            setattr(model.get_submodule(parent), key, fold_rep_convs([module], [nn.Identity()]))
    return model


def test_detector_is_counted_whole():
    cfg = read("mask_rcnn_metaspike_shapes.py", **{"backbone.time_steps": 2})
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=7)
    model, batch = build(cfg, (96, 128))
    calls = {}
    for name in ("bbox_head", "mask_head"):
        getattr(model.roi_head, name).register_forward_pre_hook(
            lambda m, args, name=name: calls.__setitem__(name, args[0].size(0))
        )
    report = measure(model, [batch])
    assert calls["mask_head"] == 7
    assert list(report.parts) == [
        "backbone",
        "neck",
        "rpn_head",
        "roi_head.bbox_head",
        "roi_head.mask_head",
        "heads",
    ]
    rows = {row.name: row for row in report.layers}
    levels = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
    rpn = rows["rpn_head.rpn_conv.0.layer"]
    assert rpn.calls == len(levels)
    pixels = sum(h * w for h, w in levels)
    width = cfg.model.neck.out_channels
    assert rpn.macs == pixels * 9 * width * model.rpn_head.feat_channels
    fc = rows["roi_head.bbox_head.shared_fcs.0.layer"]
    layer = model.roi_head.bbox_head.shared_fcs[0].layer
    assert fc.macs == calls["bbox_head"] * layer.in_features * layer.out_features
    conv = rows["roi_head.mask_head.convs.0.layer"]
    assert conv.macs == 7 * 14 * 14 * model.roi_head.mask_head.convs[0].layer.weight.numel()
    logits = rows["roi_head.mask_head.conv_logits"]  # reads spikes averaged over time
    assert len(logits.rates) == 2
    assert logits.macs == logits.executed
    heads = [r for r in report.layers if "head" in r.part or r.part == "neck"]
    assert all(row.reads == "spikes" for row in heads)
    assert report.uncounted == []


@pytest.mark.parametrize("time_steps", [1, 4])
def test_segmentor_is_counted_whole(time_steps):
    cfg = read("semantic_fpn_metaspike_shapes.py", **{"backbone.time_steps": time_steps})
    model, batch = build(cfg, (64, 96))
    report = measure(model, [batch, batch])
    once = measure(model, [batch])
    assert report.total == pytest.approx(once.total)
    assert list(report.parts) == ["backbone", "neck", "decode_head"]
    heads = [row for row in report.layers if row.part != "backbone"]
    assert all(row.reads == "spikes" for row in heads)
    assert report.uncounted == []
    rates = {row.name: row.rates for row in report.neurons}
    last = report.layers[-1]
    assert last.name == "decode_head.conv_seg"
    assert last.rates == rates["decode_head.neuron"]


def test_ordinary_head_of_the_host_is_macs():
    cfg = read(
        "upernet_metaspike_ade20k.py",
        **{
            "backbone.arch": dict(_delete_=True, embed_dims=[16, 16, 24, 32], num_heads=4),
            "backbone.init_cfg": None,
            "backbone.time_steps": 2,
            "decode_head.in_channels": [16, 16, 24, 32],
            "decode_head.channels": 16,
            "auxiliary_head": None,
        },
    )
    model, batch = build(cfg, (64, 64))
    report = measure(model, [batch])
    head = [row for row in report.layers if row.part == "decode_head"]
    assert head
    assert {row.reads for row in head} == {"real values"}
    assert all(row.executed == row.macs for row in head)  # once, not T times
    assert report.parts["decode_head"]["ann_ratio"] == pytest.approx(1)
    assert report.uncounted == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "size"),
    [
        ("semantic_fpn_metaspike_ade20k.py", (256, 256)),
        ("mask_rcnn_metaspike_coco.py", (400, 667)),
    ],
)
def test_macs_of_the_real_configs_are_mmengines(config, size):
    model, batch = build(read(config), size)
    data = model.data_preprocessor(batch)
    samples = {} if "ade20k" in config else {"data_samples": data["data_samples"]}
    with torch.no_grad(), EnergyCounter(model) as counter:
        model(data["inputs"], **samples)
    ours = counter.report(1).total["macs"]
    if samples:
        forward = model.forward
        model.forward = lambda img: forward(img, **samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = FlopAnalyzer(fold_all(model), data["inputs"]).unsupported_ops_warnings(False)
        total = theirs.total()
    assert ours == pytest.approx(total, rel=0.01)
