"""The checks before the first step: no false alarms, wrappers, and what no tool is needed for.

Most faults are tested through the tools, in tests/tools/test_preflight.py.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from mmengine.config import Config

from mmspike.engine.preflight import preflight
from mmspike.engine.preflight.report import Report
from tests.conftest import ROOT
from tests.engine.preflight_data import (
    read_config,
    write_coco,
    write_folders,
    write_segmentation,
)

CONFIGS = sorted(p.name for p in (ROOT / "configs").glob("*.py"))
DETECTOR = "mask_rcnn_metaspike_shapes.py"
SEGMENTOR = "semantic_fpn_metaspike_shapes.py"


def data_of(name: str) -> str:
    words = {"ade20k": "ade", "cityscapes": "cityscapes", "voc12": "voc", "nuclei": "nuclei"}
    return next((data for word, data in words.items() if word in name), "shapes")


@pytest.fixture
def skipped(monkeypatch):
    """What is left out, as a list of pairs of key and reason."""
    found = []
    monkeypatch.setattr(Report, "skip", lambda _, where, why: found.append((where, why)))
    return found


@pytest.fixture
def warned(monkeypatch):
    found = []
    monkeypatch.setattr(Report, "warn", lambda _, where, what: found.append(f"{where}: {what}"))
    return found


def problems_of(cfg, mode="train") -> str:
    with pytest.raises(SystemExit) as caught:
        preflight(cfg, mode)
    return str(caught.value)


@pytest.fixture(scope="module")
def imagenet_root(tmp_path_factory):
    """Folders of a thousand classes."""
    return write_folders(tmp_path_factory.mktemp("imagenet"), 1000)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_passes_on_data_that_fits(
    name, tmp_path, shapes_root, imagenet_root, skipped, warned
):
    root = tmp_path
    if name.endswith("_in1k.py"):
        pytest.importorskip("mmpretrain", reason="needs mmpretrain: make install brings it")
        root = imagenet_root
    elif name.startswith("mask_rcnn") and "coco" in name:
        from mmdet.datasets import CocoDataset

        write_coco(root, CocoDataset.METAINFO["classes"])  # 80 images, and few steps
    elif name.startswith("mask_rcnn"):
        root = shapes_root
    else:
        write_segmentation(root, data_of(name))
    cfg = read_config(name, root)
    if "coco" in name:
        cfg.param_scheduler[0].end = 40
    before = deepcopy(cfg.to_dict())
    for mode in ("train", "test"):
        preflight(cfg, mode)
    assert skipped == warned == []  # all of it was looked at
    assert cfg.to_dict() == before


@pytest.mark.parametrize(
    ("wrapped", "key"),
    [
        (lambda d: dict(type="RepeatDataset", times=3, dataset=d), "dataset.dataset"),
        (
            lambda d: dict(type="ClassBalancedDataset", oversample_thr=0.1, dataset=d),
            "dataset.dataset",
        ),
        (lambda d: dict(type="ConcatDataset", datasets=[d, deepcopy(d)]), "dataset.datasets.1"),
        (
            lambda d: dict(
                type="MultiImageMixDataset",
                dataset=dict(type="RepeatDataset", times=2, dataset=d),
                pipeline=[],
            ),
            "dataset.dataset.dataset",
        ),
    ],
    ids=["repeat", "balanced", "concat", "mix"],
)
def test_wrappers_are_looked_through(wrapped, key, shapes_root, skipped):
    cfg = read_config(DETECTOR, shapes_root)
    cfg.train_dataloader.dataset = wrapped(cfg.train_dataloader.dataset)
    preflight(cfg, "train")
    assert skipped == []
    inner = cfg.train_dataloader
    for part in key.split("."):
        inner = inner[int(part)] if part.isdigit() else inner[part]
    inner.data_prefix.img = "nowhere/"
    assert f"train_dataloader.{key}.data_prefix.img: 8 of 8 images" in problems_of(cfg)


def test_unknown_data_sets_are_left_out_with_a_line(shapes_root, skipped):
    cfg = read_config(DETECTOR, shapes_root)
    cfg.train_dataloader.dataset = dict(type="VOCDataset", data_root="nowhere/")
    cfg.val_dataloader.dataset.backend_args = dict(backend="petrel")
    preflight(cfg, "train")
    assert skipped == [
        ("train_dataloader.dataset", "since data sets of type VOCDataset are not known here"),
        ("val_dataloader.dataset", "since its files are not local"),
    ]


def test_heads_of_a_cascade_are_named_one_by_one(shapes_root):
    cfg = read_config(DETECTOR, shapes_root)
    heads = [deepcopy(cfg.model.roi_head.bbox_head) for _ in range(3)]
    heads[1].num_classes = 80
    del heads[2]["num_classes"]  # 80 by default
    weights = [1, 0.5, 0.25]
    cfg.model.roi_head.update(
        type="mmspike.det.SpikeCascadeRoIHead",
        bbox_head=heads,
        num_stages=3,
        stage_loss_weights=weights,
    )
    cfg.model.train_cfg.rcnn = [deepcopy(cfg.model.train_cfg.rcnn) for _ in heads]
    text = problems_of(cfg)
    assert "2 problems" in text
    for i in (1, 2):
        assert f"model.roi_head.bbox_head.{i}.num_classes: is 80, but" in text
    assert "has 3 classes (circle, square, triangle); set it to 3" in text


def test_auxiliary_heads_are_compared_too(tmp_path):
    write_segmentation(tmp_path, "ade")
    cfg = read_config("upernet_metaspike_ade20k.py", tmp_path)
    cfg.model.auxiliary_head.num_classes = 19
    text = problems_of(cfg)
    assert "model.auxiliary_head.num_classes: is 19, but" in text
    assert "a problem" in text


@pytest.mark.parametrize("mode", ["train", "test"])
def test_heads_that_need_not_agree_are_left_alone(mode, tmp_path, shapes_root):
    write_segmentation(tmp_path, "nuclei")
    cfg = read_config("semantic_fpn_metaspike_nuclei.py", tmp_path)
    cfg.model.decode_head.update(num_classes=1, out_channels=1, threshold=0.5)
    cfg.model.decode_head.loss_decode.use_sigmoid = True
    preflight(cfg, mode)
    cfg = read_config(DETECTOR, shapes_root)
    cfg.model.roi_head.mask_head.num_classes = 80  # class_agnostic
    preflight(cfg, mode)


def test_labels_are_judged_as_the_pipeline_loads_them(tmp_path):
    write_segmentation(tmp_path, "ade")
    cfg = read_config("semantic_fpn_metaspike_ade20k.py", tmp_path)
    for part in ("train", "val"):
        dataset = cfg[f"{part}_dataloader"].dataset
        dataset.reduce_zero_label = False
        del next(t for t in dataset.pipeline if t.type == "LoadAnnotations")["reduce_zero_label"]
    text = problems_of(cfg)  # 150 would be 149 with it
    assert "holds the numbers 150, but there are 150 classes" in text
    assert "set reduce_zero_label=True" in text


def test_a_single_class_in_all_maps_is_a_warning_alone(tmp_path, warned):
    write_segmentation(tmp_path, "nuclei")
    for file in (tmp_path / "semseg").rglob("*.png"):
        file.write_bytes(_png([0]))
    preflight(read_config("semantic_fpn_metaspike_nuclei.py", tmp_path), "train")
    (line,) = warned
    assert "the label maps looked into hold 0 alone" in line


def _png(numbers) -> bytes:
    import cv2
    import numpy as np

    return cv2.imencode(".png", np.resize(np.asarray(numbers, np.uint8), (16, 16)))[1].tobytes()


def test_coloured_label_maps_are_named(tmp_path):
    import cv2
    import numpy as np

    write_segmentation(tmp_path, "nuclei")
    for file in (tmp_path / "semseg").rglob("*.png"):
        cv2.imwrite(str(file), np.zeros((16, 16, 3), np.uint8))
    text = problems_of(read_config("semantic_fpn_metaspike_nuclei.py", tmp_path))
    assert "a.png has the shape [16, 16, 3], not [H, W]" in text


def change(root, tmp_path, split, edit):
    """A copy of an annotation file, changed by a function."""
    content = json.loads((root / f"annotations/{split}.json").read_text())
    edit(content)
    file = tmp_path / f"{split}.json"
    file.write_text(json.dumps(content))
    return str(file)


def test_filtered_images_need_not_be_there(shapes_root, tmp_path):
    def add_an_empty_image(content):
        content["images"].append({"id": 99, "file_name": "gone.png", "height": 128, "width": 128})

    cfg = read_config(DETECTOR, shapes_root)
    cfg.train_dataloader.dataset.ann_file = change(
        shapes_root, tmp_path, "train", add_an_empty_image
    )
    preflight(cfg, "train")
    cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt = False
    assert "1 of 9 images" in problems_of(cfg)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("categories"), "has no categories"),
        (lambda c: c["images"][3].pop("height"), "has no height in images[3]"),
        (lambda c: c["annotations"][0].pop("area"), "has no area in annotations[0]"),
        (
            lambda c: c["categories"].append({"id": 9, "name": "square"}),
            "has the category square more than once",
        ),
        (
            lambda c: [a.update(category_id=7) for a in c["annotations"]],
            "no box of",
        ),
        (lambda c: c.update(annotations=[]), "has no boxes for its"),
    ],
    ids=["categories", "height", "area", "twice", "ids", "boxes"],
)
def test_annotation_files_that_end_in_a_nameless_error(edit, message, shapes_root, tmp_path):
    cfg = read_config(DETECTOR, shapes_root)
    file = change(shapes_root, tmp_path, "train", edit)
    cfg.train_dataloader.dataset.update(ann_file=file, filter_cfg=None)
    text = problems_of(cfg)
    assert "train_dataloader.dataset.ann_file: " in text
    assert message in text
    assert file in text


def test_classes_in_another_order_than_the_file_are_a_warning(shapes_root, warned):
    cfg = read_config(DETECTOR, shapes_root)
    for part in ("train", "val"):
        cfg[f"{part}_dataloader"].dataset.metainfo.classes = ("square", "circle", "triangle")
    preflight(cfg, "train")
    assert len(warned) == 2
    assert "mmdet numbers classes in the order of" in warned[0]


def test_a_part_of_the_images_scored_against_all_is_a_warning(shapes_root, warned):
    cfg = read_config(DETECTOR, shapes_root)
    cfg.val_dataloader.dataset.indices = 2
    preflight(cfg, "train")
    (line,) = warned
    assert line.startswith("val_evaluator.ann_file: scores the 4 images of")
    assert "val_dataloader.dataset gives 2: the rest are missed (its indices=2)" in line


def test_short_trials_may_end_in_the_warm_up(shapes_root, warned):
    cfg = read_config(DETECTOR, shapes_root)
    cfg.train_cfg.max_iters = 3
    preflight(cfg, "train")
    assert "LinearLR warms up until iteration 50, but training ends at 3" in warned[0]


@pytest.mark.parametrize("kind", ["LinearLR", "mmspike.WarmupLR"])
@pytest.mark.parametrize("max_epochs", [20, 60])
def test_a_warm_up_in_steps_is_compared_with_epochs(max_epochs, kind, shapes_root):
    cfg = read_config(DETECTOR, shapes_root)
    cfg.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs)
    cfg.train_dataloader.batch_size = 2  # 4 steps an epoch
    cfg.param_scheduler = [dict(type=kind, by_epoch=False, end=100)]
    if max_epochs == 20:
        text = problems_of(cfg)
        name = kind.removeprefix("mmspike.")
        assert f"param_scheduler.0.end: {name} warms up until iteration 100" in text
        assert "training ends at 80 (train_cfg.max_epochs)" in text
    else:
        preflight(cfg, "train")


def test_hosts_are_not_imported_for_configs_of_neither():
    code = (
        "import sys\n"
        "from mmengine.config import Config\n"
        "from mmspike.engine.preflight import preflight\n"
        "cfg = Config(dict(model=dict(type='X'), param_scheduler=[],\n"
        "    train_cfg=dict(max_iters=9),\n"
        "    train_dataloader=dict(batch_size=1, dataset=dict(type='BaseDataset'))))\n"
        "preflight(cfg, 'train')\n"
        "assert not {'mmdet', 'mmseg'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("key", ["load_from", "model.backbone.init_cfg.checkpoint"])
def test_a_checkpoint_that_cannot_be_read_is_named(key, shapes_root, tmp_path):
    file = tmp_path / "file.pth"
    torch.save({"state_dict": {"weight": torch.rand(1000)}}, file)
    whole = file.read_bytes()
    cfg = read_config(DETECTOR, shapes_root)
    if key == "load_from":
        cfg.load_from = str(file)
    else:
        cfg.model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": str(file)}
    preflight(cfg, "train")
    contents = {"cut off": whole[: len(whole) // 2], "web page": b"<!DOCTYPE html>", "empty": b""}
    for said, content in contents.items():
        file.write_bytes(content)
        problems = problems_of(cfg)
        assert f"- {key}: checkpoint {file}: " in problems
        assert said in problems


def test_one_process_of_torchrun_checks(shapes_root, monkeypatch):
    cfg = read_config(DETECTOR, shapes_root)
    cfg.load_from = "no.pth"
    cfg.launcher = "pytorch"  # which ends the others with it
    monkeypatch.setenv("RANK", "1")
    preflight(cfg, "train")
    monkeypatch.setenv("RANK", "0")
    assert "load_from: there is no file no.pth" in problems_of(cfg)
    cfg.launcher = "slurm"  # which may not
    monkeypatch.setenv("RANK", "1")
    assert "load_from" in problems_of(cfg)


def test_configs_with_classes_instead_of_names_are_read(shapes_root, tmp_path, skipped):
    config = tmp_path / "pure.py"
    old = read_config(DETECTOR, shapes_root)
    plain = json.dumps(old.train_dataloader.dataset.to_dict())
    config.write_text(
        "import json\n"
        "from mmdet.datasets import CocoDataset\n"
        "from mmspike.backbones import MetaSpikeFormer\n"
        "default_scope = 'mmdet'\n"
        "model = dict(type='X', bbox_head=dict(type='Y', num_classes=2))\n"
        f"dataset = dict({plain.replace('true', 'True')})\n"
        "dataset.update(type=CocoDataset)\n"
        "train_cfg = dict(max_iters=100)\n"
        "train_dataloader = dict(batch_size=1, dataset=dataset)\n"
    )
    text = problems_of(Config.fromfile(config))
    assert "model.bbox_head.num_classes: is 2, but train_dataloader.dataset has 3 classes" in text
    assert skipped == []


def test_label_maps_are_not_judged_before_a_transform_of_the_user_s(tmp_path, skipped):
    from mmseg.registry import TRANSFORMS

    @TRANSFORMS.register_module(force=True)
    class MergeClasses:
        """A transform of which nothing is known."""

    write_segmentation(tmp_path, "nuclei")
    for file in (tmp_path / "semseg/train").rglob("*.png"):
        file.write_bytes(_png([0, 1, 7]))
    cfg = read_config("semantic_fpn_metaspike_nuclei.py", tmp_path)
    assert "holds the numbers 7" in problems_of(cfg)
    dataset = cfg.train_dataloader.dataset
    own = dict(type="RandomChoice", transforms=[[dict(type="MergeClasses")]])
    dataset.pipeline.append(own)
    preflight(cfg, "train")
    ((where, why),) = skipped
    assert where == "train_dataloader.dataset.pipeline"
    assert "the label maps, since MergeClasses comes after LoadAnnotations" in why
    dataset.pipeline.pop()
    cfg.train_dataloader.dataset = dict(
        type="MultiImageMixDataset", dataset=dataset, pipeline=[dict(type="MergeClasses")]
    )
    preflight(cfg, "train")
    assert "MergeClasses" in skipped[1][1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["annotations"][1].update(id=17, bbox=[]), "bbox [] in annotation 17"),
        (lambda c: c["annotations"][1].update(id=17, bbox=None), "bbox None in annotation 17"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "bbox [1, 2, 3] in annotation"),
        (lambda c: c["annotations"][1].update(bbox=["1", 2, 3, 4]), "expected four numbers"),
        (lambda c: c["annotations"][1].update(area=None), "area None in annotation"),
        (lambda c: c["images"][1].update(width="9"), "width '9' in image"),
        (lambda c: c["categories"][1].pop("name"), "has no name in categories[1]"),
        (lambda c: c["categories"][1].pop("id"), "has no id in categories[1]"),
        (lambda c: c.update(annotations=None), "is no list"),
        (lambda c: c["images"].append(3), "images[8] of"),
    ],
)
def test_strange_entries_of_an_annotation_file_are_named(edit, message, shapes_root, tmp_path):
    cfg = read_config(DETECTOR, shapes_root)
    file = change(shapes_root, tmp_path, "train", edit)
    cfg.train_dataloader.dataset.ann_file = file
    text = problems_of(cfg)
    assert "train_dataloader.dataset.ann_file: " in text
    assert file in text
    assert message in text


def test_an_error_of_a_check_s_own_is_a_line_in_the_log(shapes_root, monkeypatch):
    from mmspike.engine.preflight import report

    lines = []
    monkeypatch.setattr(report, "print_log", lambda line, _, level: lines.append((level, line)))
    cfg = read_config(DETECTOR, shapes_root)
    cfg.param_scheduler[0].end = "soon"
    preflight(cfg, "train")
    ((level, line),) = lines
    assert level == logging.WARNING
    assert "param_scheduler: not checked, since schedule.check_schedule ended in TypeError" in line
    cfg.load_from = "no.pth"  # a refusal all the same
    assert "load_from: there is no file no.pth" in problems_of(cfg)


def test_an_epoch_is_as_long_as_the_data_loader_makes_it(shapes_root, skipped):
    cfg = read_config(DETECTOR, shapes_root)
    cfg.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=60)
    cfg.train_dataloader.update(batch_size=2, num_batch_per_epoch=1)  # of 4
    cfg.param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=100)]
    assert "training ends at 60 (train_cfg.max_epochs)" in problems_of(cfg)
    cfg.train_dataloader.num_batch_per_epoch = 3
    preflight(cfg, "train")
    assert skipped == []
    cfg.train_dataloader.update(num_batch_per_epoch=1, sampler=dict(type="RepeatAugSampler"))
    preflight(cfg, "train")
    ((where, why),) = skipped
    assert where == "param_scheduler.0"
    assert "train_dataloader.sampler (RepeatAugSampler) may give another number of images" in why


@pytest.mark.parametrize(
    ("part", "given", "message"),
    [
        ("backbone", dict(T=4), "model.backbone: MetaSpikeFormer has no argument 'T'; it takes "),
        ("backbone", dict(time_step=4), "write time_steps if that is meant, else leave it out"),
        ("backbone", dict(time_steps=-1), "model.backbone: MetaSpikeFormer cannot be built (Value"),
        (
            "backbone",
            dict(type="mmspike.MetaSpikeFormr"),
            "model.backbone.type: mmspike.MetaSpikeFormr is not in the",
        ),
        ("backbone", dict(type="mmspike.MetaSpikeFormr"), "is it 'mmspike.MetaSpikeFormer'?"),
        ("rpn_head", dict(colour=1), "model.rpn_head: "),
    ],
)
def test_models_that_cannot_be_built_are_refused(part, given, message, shapes_root):
    cfg = read_config(DETECTOR, shapes_root)
    cfg.model[part].update(given)
    text = problems_of(cfg)
    assert "a problem" in text
    assert message in text


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("weights"),
        ValueError("Default process group has not been initialized"),
        TypeError("meta tensor"),
    ],
)
def test_models_that_may_be_built_elsewhere_are_not_refused(
    error, shapes_root, skipped, monkeypatch
):
    import torch
    from mmdet.models import MaskRCNN

    build = MaskRCNN.__init__

    def fail(self, *args, **kwargs):
        if not isinstance(error, TypeError) or torch.empty(0).is_meta:
            raise error
        build(self, *args, **kwargs)

    monkeypatch.setattr(MaskRCNN, "__init__", fail)
    preflight(read_config(DETECTOR, shapes_root), "train")
    ((where, why),) = skipped
    assert where == "model"
    assert str(error) in why


def test_paths_to_mend_are_named_by_their_full_keys(shapes_root):
    cfg = read_config(DETECTOR, shapes_root)
    cfg.train_dataloader.dataset.data_root = "nowhere/"
    key = "train_dataloader.dataset"
    assert f"; mend {key}.ann_file, or {key}.data_root" in problems_of(cfg)
