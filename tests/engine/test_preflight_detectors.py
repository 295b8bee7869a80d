"""The checks before the first step, on detectors of one stage, of cascades and of mmdet's own."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from mmspike.engine.preflight import preflight
from mmspike.engine.preflight.report import Report
from tests.conftest import ROOT
from tests.engine.preflight_data import read_config, write_coco

FOLDERS = ("faster_rcnn", "retinanet", "cascade_rcnn", "rtmdet", "dino")
CONFIGS = sorted(
    str(p.relative_to(ROOT / "configs"))
    for folder in FOLDERS
    for p in (ROOT / "configs" / folder).glob("*.py")
)


def shapes(folder):
    return next(name for name in CONFIGS if name.startswith(folder) and "shapes" in name)


def problems_of(cfg, mode="train") -> str:
    with pytest.raises(SystemExit) as caught:
        preflight(cfg, mode)
    return str(caught.value)


@pytest.fixture
def told(monkeypatch):
    """What is left out, or warned of."""
    found = []
    for name in ("skip", "warn"):
        monkeypatch.setattr(Report, name, lambda _, *words: found.append(words))
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_passes_on_data_that_fits(name, tmp_path, shapes_root, told):
    root = shapes_root
    if "coco" in name:
        from mmdet.datasets import CocoDataset

        root = tmp_path
        write_coco(root, CocoDataset.METAINFO["classes"])
    elif "own" in name:
        root = tmp_path
        classes = read_config(name).classes
        write_coco(root, classes)
        for split in ("train", "val"):
            (root / f"{split}2017").rename(root / split)
            file = root / f"annotations/instances_{split}2017.json"
            file.rename(root / f"annotations/{split}.json")
    cfg = read_config(name, root)
    if "coco" in name:
        cfg.param_scheduler[0].end = 12 if cfg.param_scheduler[0].by_epoch else 40
    before = deepcopy(cfg.to_dict())
    for mode in ("train", "test"):
        preflight(cfg, mode)
    assert told == []  # all of it was looked at
    assert cfg.to_dict() == before


@pytest.mark.parametrize("folder", FOLDERS)
def test_classes_of_every_head_are_compared(folder, shapes_root):
    cfg = read_config(shapes(folder), shapes_root)
    head = cfg.model.get("bbox_head") or cfg.model.roi_head.bbox_head
    key = "model.bbox_head" if cfg.model.get("bbox_head") else "model.roi_head.bbox_head"
    if folder == "cascade_rcnn":
        key, head = f"{key}.1", head[1]
    head.num_classes = 80
    text = problems_of(cfg)
    assert "a problem" in text
    assert f"{key}.num_classes: is 80, but train_dataloader.dataset has 3 classes" in text


@pytest.mark.parametrize("folder", FOLDERS)
def test_masks_are_not_evaluated_where_none_are_predicted(folder, shapes_root):
    cfg = read_config(shapes(folder), shapes_root)
    cfg.val_evaluator.metric = ["bbox", "segm"]
    text = problems_of(cfg)
    assert "val_evaluator.metric: is bbox, segm, but model." in text
    assert "has no mask_head" in text or "predicts boxes alone" in text
    assert 'evaluate metric="bbox" alone' in text


def test_heads_of_one_stage_with_masks_are_left_alone(shapes_root):
    cfg = read_config(shapes("rtmdet"), shapes_root)
    cfg.model.bbox_head.type = "RTMDetInsSepBNHead"
    del cfg.model.bbox_head["exp_on_reg"]
    cfg.val_evaluator.metric = ["bbox", "segm"]
    for dataset in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        dataset.pipeline[
            dataset.pipeline.index(dict(type="mmdet.LoadAnnotations", with_bbox=True))
        ].update(with_mask=True)
    preflight(cfg, "train")


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        (
            "retinanet",
            {"bbox_head.anchor_generator.strides": [8, 16, 64]},
            "model: SpikeRetinaNet cannot be built (ValueError: "
            "bbox_head.anchor_generator.strides=[8, 16, 64] must be the neck's strides",
        ),
        (
            "rtmdet",
            {"bbox_head.anchor_generator.strides": [4, 8, 16]},
            "model.bbox_head.anchor_generator.strides: expects maps of strides [4, 8, 16], but "
            "backbone and neck give [8, 16, 32]",
        ),
        (
            "dino",
            {"backbone.decode": None},
            "model: neck (ChannelMapper) reads maps [B, C, H, W], but the backbone gives sequences "
            '[T, B, C, H, W]; backbone.decode="mean" averages them over time',
        ),
        (
            "retinanet",
            {"type": "RetinaNet", "neuron_cfg": None, "bbox_head.type": "RetinaHead"},
            "bbox_head (RetinaHead) reads maps [B, C, H, W], but the neck gives sequences",
        ),
    ],
)
def test_strides_and_the_time_axis(folder, options, message, shapes_root):
    cfg = read_config(shapes(folder), shapes_root)
    cfg.merge_from_dict({f"model.{key}": value for key, value in options.items()})
    if cfg.model.get("neuron_cfg", 0) is None:
        del cfg.model["neuron_cfg"]
    assert message in problems_of(cfg)


def test_an_ordinary_neck_inside_of_steps_is_run_for_its_strides(shapes_root, told):
    cfg = read_config(shapes("retinanet"), shapes_root)
    fpn = dict(type="FPN", in_channels=[64, 180], out_channels=64, num_outs=3)
    cfg.model.neck = dict(type="mmspike.PerStepNeck", neck=fpn)
    cfg.model.backbone.out_indices = (2, 4)
    preflight(cfg, "train")
    assert told == []
    cfg.model.type = "RetinaNet"  # mmdet's own, which checks nothing itself
    del cfg.model["neuron_cfg"]
    preflight(cfg, "train")
    cfg.model.bbox_head.anchor_generator.strides = [4, 8, 16]
    assert "but backbone and neck give [8, 16, 32]" in problems_of(cfg)


def test_own_classes_are_named_where_they_do_not_fit(tmp_path, told):
    name = next(name for name in CONFIGS if "own-boxes" in name)
    write_coco(tmp_path, ["cat", "dog"])
    content = (tmp_path / "annotations/instances_train2017.json").read_text()
    for split in ("train", "val"):
        (tmp_path / f"annotations/{split}.json").write_text(content)
        (tmp_path / f"{split}2017").rename(tmp_path / split)
    assert json.loads(content)["categories"][0]["name"] == "cat"
    text = problems_of(read_config(name, tmp_path))
    assert "train_dataloader.dataset.metainfo.classes: 'RBC'" in text
    assert "whose categories are cat, dog" in text
