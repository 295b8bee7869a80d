"""Faults that users report, found by the tools before the first step."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmspike.engine.configs import merge_options
from mmspike.engine.preflight import preflight
from tests.conftest import ROOT
from tests.tools.helpers import run
from tests.tools.test_tools import options

DETECTOR = "configs/mask_rcnn_metaspike_shapes.py"
SEGMENTOR = "configs/semantic_fpn_metaspike_shapes.py"
STOCK = """
_base_ = {base!r}
model = dict(
    _delete_=True,
    type="RetinaNet",
    data_preprocessor=dict(type="DetDataPreprocessor"),
    backbone=dict(
        type="mmspike.MetaSpikeFormer",
        arch=dict(embed_dims=[16, 16, 24, 32], num_heads=4),
        out_indices={indices},
        decode="mean",
    ),
    neck=dict(type="FPN", in_channels={channels}, out_channels=16, num_outs=5),
    bbox_head=dict(
        type="RetinaHead",
        num_classes=3,
        in_channels=16,
        feat_channels=16,
        anchor_generator=dict(
            type="AnchorGenerator", scales=[4], ratios=[1.0], strides=[4, 8, 16, 32, 64]
        ),
    ),
)
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def changed(shapes_root, tmp_path_factory):
    """Annotation files with one fault each."""
    folder = tmp_path_factory.mktemp("annotations")
    original = json.loads((shapes_root / "annotations/train.json").read_text())

    def write(name, edit):
        content = json.loads(json.dumps(original))
        for ann in content["annotations"]:
            edit(ann)
        (folder / f"{name}.json").write_text(json.dumps(content))

    write("bare", lambda ann: ann.pop("segmentation"))
    write("flat", lambda ann: ann.update(bbox=[*ann["bbox"][:3], 0]))
    (folder / "broken.json").write_text("{")
    return folder


def refuse(tool, config, args, opts, *messages):
    """Run a tool that has to end in the preflight."""
    out = run(tool, config, *args, *opts, ok=False)
    assert "preflight: " in out
    assert "--no-preflight" in out
    for message in messages:
        assert message in out
    assert "Traceback" not in out
    assert "Iter(" not in out
    return out


DETECTION = {
    "80 classes": (
        ["model.roi_head.bbox_head.num_classes=80"],
        "model.roi_head.bbox_head.num_classes: is 80, but train_dataloader.dataset has 3 classes "
        "(circle, square, triangle); set it to 3",
    ),
    "2 classes": (
        [
            "model.roi_head.bbox_head.num_classes=2",
            "model.roi_head.mask_head.num_classes=2",
            "model.roi_head.mask_head.class_agnostic=False",
        ],
        "model.roi_head.bbox_head.num_classes: is 2, but",
        "model.roi_head.mask_head.num_classes: is 2, but",
        "2 problems",
    ),
    "other names": (
        ["train_dataloader.dataset.metainfo.classes=[cat,dog,cow]"],
        "train_dataloader.dataset.metainfo.classes: 'cat', 'dog', 'cow' is not in",
        "whose categories are circle, square, triangle",
    ),
    "misspelt": (
        ["val_dataloader.dataset.metainfo.classes=[circle,sqare,triangle]"],
        "val_dataloader.dataset.metainfo.classes: 'sqare' (is it 'square'?) is not in",
    ),
    "text": (
        ["train_dataloader.dataset.metainfo.classes=circle"],
        "train_dataloader.dataset.metainfo.classes: is the text 'circle'; write a tuple",
    ),
    "folder": (
        ["train_dataloader.dataset.data_prefix.img=images/"],
        "train_dataloader.dataset.data_prefix.img: 8 of 8 images of",
        "images/000000.png",
    ),
    "no file": (
        ["train_dataloader.dataset.ann_file=annotations/trian.json"],
        "train_dataloader.dataset.ann_file: there is no file",
        "annotations/trian.json",
    ),
    "broken file": (
        ["train_dataloader.dataset.ann_file={changed}/broken.json"],
        "broken.json is no JSON file",
    ),
    "no masks": (
        ["train_dataloader.dataset.ann_file={changed}/bare.json"],
        "train_dataloader.dataset.ann_file:",
        "bare.json have no segmentation, but the pipeline loads masks",
    ),
    "masks not loaded": (
        ["train_dataloader.dataset.pipeline.1.with_mask=False"],
        "train_dataloader.dataset.pipeline: loads no masks, but model.roi_head.mask_head",
    ),
    "degenerate": (
        ["train_dataloader.dataset.ann_file={changed}/flat.json"],
        "flat.json are degenerate",
        "[x, y, width, height] in pixels",
    ),
    "warm-up": (
        ["train_cfg.max_iters=100", "param_scheduler.0.end=4000"],
        "param_scheduler.0.end: LinearLR warms up until iteration 4000, but training ends at 100 "
        "(train_cfg.max_iters)",
    ),
    "pretrained": (
        ["model.backbone.init_cfg.type=Pretrained", "model.backbone.init_cfg.checkpoint=no.pth"],
        "model.backbone.init_cfg.checkpoint: there is no file no.pth",
        "--cfg-options model.backbone.init_cfg=None trains from scratch",
    ),
    "load_from": (["load_from=no.pth"], "load_from: there is no file no.pth"),
    "no truth": (
        ["val_evaluator.ann_file=nowhere.json"],
        "val_evaluator.ann_file: there is no file nowhere.json",
    ),
    "other truth": (
        ["val_evaluator.ann_file={root}/annotations/train.json"],
        "val_evaluator.ann_file: scores the 8 images of",
        "but val_dataloader.dataset gives 4",
        "annotations/val.json",
    ),
    "truth without masks": (
        ["val_evaluator.ann_file={changed}/bare.json"],
        "val_evaluator.metric: has segm, but",
    ),
    "masks of no mask head": (
        ["model.roi_head.mask_head=None", "model.roi_head.mask_roi_extractor=None"],
        "val_evaluator.metric: is bbox, segm, but model.roi_head has no mask_head",
    ),
}


@pytest.mark.parametrize("case", DETECTION)
def test_training_a_detector_ends_before_it_begins(case, shapes_root, changed, work):
    given, *messages = DETECTION[case]
    given = [o.format(changed=changed, root=shapes_root) for o in given]
    opts = [*options(shapes_root), *given]
    refuse("train.py", DETECTOR, ["--work-dir", work], opts, *messages)


def write_maps(folder, numbers):
    for split, count in (("train", 8), ("val", 4)):
        (folder / split).mkdir(parents=True)
        for i in range(count):
            labels = np.resize(np.asarray(numbers, np.uint8), (128, 128))
            cv2.imwrite(str(folder / split / f"{i:06d}.png"), labels)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Label maps of 0 and 255, and with a class too many."""
    folder = tmp_path_factory.mktemp("maps")
    write_maps(folder / "ignored", [0, 255])
    write_maps(folder / "beyond", [0, 1, 2, 3, 4, 255])
    return folder


NEURONS = {
    "all": (
        ["model.neuron_cfg.type=LFI"],
        "- model.neuron_cfg: no neuron can be built (ValueError: neuron_cfg: no neuron of type "
        "'LFI' (is it 'mmspike.LIF'?)",
    ),
    "text": (
        ["model.neuron_cfg=LIF"],
        "- model.neuron_cfg: no neuron can be built (TypeError: neuron_cfg must be a config such "
        "as dict(type='LIF'), got 'LIF')",
    ),
    "argument": (
        ["model.neuron_cfg.type=mmspike.IntegerLIF", "model.neuron_cfg.levls=4"],
        "- model.neuron_cfg: IntegerLIF has no argument 'levls'; it takes levels, beta,",
        "write levels if that is meant",
    ),
    "backbone": (
        [
            "model.neuron_cfg.tau=2.0",
            "model.backbone.neuron_cfg.type=LIF",
            "model.backbone.neuron_cfg.tau=0.5",
        ],
        "- model.backbone.neuron_cfg: LIF cannot be built (ValueError: LIF: tau must be above 1",
    ),
    "attention": (
        ["model.neuron_cfg.tau=2.0", "model.backbone.attn_neuron_cfg.v_threshold=nan"],
        "- model.backbone.attn_neuron_cfg: LIF cannot be built (ValueError: neuron: v_threshold",
    ),
    "another argument": (
        ["model.neuron_cfg.tau=2.0", "model.backbone.norm_eval=no"],
        "- model.backbone: MetaSpikeFormer cannot be built (TypeError: MetaSpikeFormer: norm_eval",
    ),
    "published name": (
        [
            "model.neuron_cfg.tau=2.0",
            "model.backbone._delete_=True",
            "model.backbone.type=Spiking_vit_MetaFormer",
        ],
        "- model.backbone: Spiking_vit_MetaFormer cannot be built (TypeError: "
        "Spiking_vit_MetaFormer needs embed_dim, the widths of the four stages, such as [128,",
    ),
}


@pytest.mark.parametrize("case", NEURONS)
def test_training_names_the_neuron_that_is_wrong(case, shapes_root, tmp_path):
    given, *messages = NEURONS[case]
    data = [f"{x}_dataloader.dataset.data_root={shapes_root}/" for x in ("train", "val", "test")]
    opts = ["--cfg-options", *data, *given]
    refuse("train.py", SEGMENTOR, ["--work-dir", tmp_path], opts, "a problem", *messages)


SEGMENTATION = {
    "classes": (
        ["model.decode_head.num_classes=150"],
        "model.decode_head.num_classes: is 150, but train_dataloader.dataset has 4 classes",
    ),
    "suffix": (
        ["train_dataloader.dataset.img_suffix=.jpg"],
        "train_dataloader.dataset.img_suffix: no file under",
        "ends in '.jpg'; those there end in .png; set img_suffix='.png'",
    ),
    "folder": (
        ["train_dataloader.dataset.data_prefix.img_path=trian"],
        "train_dataloader.dataset.data_prefix.img_path: cannot be read",
        "trian",
    ),
    "suffix of maps": (
        ["val_dataloader.dataset.seg_map_suffix=_labels.png"],
        "val_dataloader.dataset.data_prefix.seg_map_path: 4 of 4 label maps are missing",
        "seg_map_suffix (now '_labels.png')",
    ),
    "0 and 255": (
        ["train_dataloader.dataset.data_prefix.seg_map_path={maps}/ignored/train"],
        "train_dataloader.dataset.data_prefix.seg_map_path: nothing can be learnt",
        "000000.png has the numbers 0, 255; write the classes as 0 to 3, and 255",
    ),
    "beyond": (
        ["train_dataloader.dataset.data_prefix.seg_map_path={maps}/beyond/train"],
        "train_dataloader.dataset.metainfo.classes:",
        "000000.png holds the numbers 4, but there are 4 classes; write 0 to 3, and 255",
    ),
    "warm-up": (
        ["train_cfg.max_iters=60", "param_scheduler.0.end=1500"],
        "warms up until iteration 1500, but training ends at 60",
    ),
}


@pytest.mark.parametrize("case", SEGMENTATION)
def test_training_a_segmentor_ends_before_it_begins(case, shapes_root, maps, work):
    given, *messages = SEGMENTATION[case]
    roots = [f"{p}_dataloader.dataset.data_root={shapes_root}/" for p in ("train", "val")]
    few = "train_cfg.max_iters=2"  # should it begin after all
    opts = ["--cfg-options", *roots, few, *(o.format(maps=maps) for o in given)]
    refuse("train.py", SEGMENTOR, ["--work-dir", work], opts, *messages)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model.roi_head.bbox_head.num_classes=80", "num_classes: is 80, but test_dataloader"),
        ("test_evaluator.ann_file={root}/annotations/train.json", "scores the 8 images of"),
        ("test_dataloader.dataset.data_prefix.img=x/", "4 of 4 images"),
        ("model.backbone.time_steps=1", "load_from: there is no file"),
    ],
    ids=["classes", "truth", "folder", "checkpoint"],
)
def test_testing_ends_before_it_begins(given, message, shapes_root, work):
    file = work / "any.pth"
    torch.save({"state_dict": {}}, file)
    checkpoint = "no.pth" if "load_from" in message else file
    opts = [*options(shapes_root), given.format(root=shapes_root)]
    refuse("test.py", DETECTOR, [checkpoint, "--work-dir", work], opts, message)


def test_wrong_strides_of_a_stock_detector_are_named(shapes_root, tmp_path):
    config = tmp_path / "stock.py"
    text = STOCK.format(base=str(ROOT / DETECTOR), indices=(1, 2, 3, 4), channels=[16, 16, 24, 32])
    config.write_text(text)
    opts = [o for o in options(shapes_root) if not o.startswith("model.")]
    opts += ["val_evaluator.metric=bbox", "test_evaluator.metric=bbox"]
    refuse(
        "train.py",
        config,
        ["--work-dir", tmp_path],
        opts,
        "model.bbox_head.anchor_generator.strides: expects maps of strides [4, 8, 16, 32, 64], but "
        "backbone and neck give [4, 8, 16, 16, 32]",
        "such as (1, 2, 4)",
    )
    config.write_text(
        STOCK.format(base=str(ROOT / DETECTOR), indices=(1, 2, 4), channels=[16, 16, 32])
    )
    cfg = Config.fromfile(config)
    merge_options(cfg, {"data_root": str(shapes_root)})
    cfg.val_evaluator = dict(type="CocoMetric", metric="bbox")
    preflight(cfg, "train")


def test_the_checks_can_be_left_out(shapes_root, tmp_path):
    opts = [*options(shapes_root, iters=1), "val_evaluator.ann_file=nowhere.json"]
    out = run("train.py", DETECTOR, "--no-preflight", "--work-dir", tmp_path, *opts, ok=False)
    assert "preflight: " not in out
    assert "Traceback" in out  # mmengine's own word on it
