"""What the checks before the first step say of classifiers: names, accuracies and teachers."""

from __future__ import annotations

import logging

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmspike.engine.configs import merge_options, use_scope
from mmspike.engine.preflight import preflight
from tests.cls.test_tools import BASE, CONFIG, write_images
from tests.tools.helpers import run

TEACHER = {"model.head.distillation": True, "model.teacher.type": "mmspike.cls.Teacher"}
RESNET = {**TEACHER, "model.teacher.model": "resnet18"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preflight")
    write_images(folder / "folders")
    (folder / "tiny.py").write_text(CONFIG.format(base=BASE, root=folder / "folders"))
    return folder / "tiny.py"


def check(config, options, mode="train"):
    """What the checks log; they end the test where they find a problem."""
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    MMLogger.get_instance("preflight").addHandler(handler)
    cfg = Config.fromfile(config)
    merge_options(cfg, options)
    use_scope(cfg)
    preflight(cfg, mode)
    return said


def names(*classes):
    splits = ("train_dataloader", "val_dataloader")
    return {f"{split}.dataset.metainfo.classes": list(classes) for split in splits}


PROBLEMS = {
    "top 5 of 3": (
        {"val_evaluator.topk": [1, 5]},
        r"val_evaluator\.topk: is \[1, 5\], but model\.head tells 3 classes apart; set it to \(1",
    ),
    "one of several": (
        {"val_evaluator": [dict(type="Accuracy"), dict(type="Accuracy", topk=4)]},
        r"val_evaluator\.1\.topk: is 4, but model\.head tells 3 classes apart",
    ),
    "a batch of more images than there are": (
        {"train_dataloader.batch_size": 49},
        r"train_dataloader\.batch_size: is 49, but train_dataloader\.dataset has 48 images, and .*"
        r"none is left; set it to at most 48, or train_dataloader\.drop_last=False",
    ),
    "no number": (
        {"val_evaluator.topk": "5"},
        r"val_evaluator\.topk: is '5'; give a whole number of at least 1",
    ),
    "a head of mmpretrain's": (
        {"model.head": dict(type="LinearClsHead", num_classes=3, cal_acc=True, topk=(1, 5))},
        r"model\.head\.topk: is \(1, 5\), but",
    ),
    "names in another order": (
        names("Striped", "light", "dark"),
        r"classes: has 'dark' as class 2, but folders are numbered in their order, and 'dark' is "
        r"class 0; write them in the order of the folders: \('dark', 'light', 'Striped'\)",
    ),
    "one of other names is elsewhere": (
        names("light", "bright", "lines"),
        r"has 'light' as class 0, but folders are numbered in their order, and 'light' is class 1",
    ),
    "a teacher's name alone": (
        {"model.head.distillation": True, "model.teacher": "resnet18"},
        r"model\.teacher must be a config such as dict\(type='mmspike\.cls\.Teacher', .*got 'resn",
    ),
    "a teacher without type": (
        {"model.head.distillation": True, "model.teacher.model": "resnet18"},
        r"model\.teacher must be a config such as .*got \{'model': 'resnet18'\}",
    ),
    "no teacher": (
        {"model.head.distillation": True, "model.teacher": None},
        r"model\.teacher: is None, but model\.head learns from one \(distillation=True\)",
    ),
    "a teacher without model": (
        {**TEACHER, "model.teacher.model": None},
        r"model\.teacher: .*model must be the name of a model, a config file, or .* got None",
    ),
    "a mean of two": (
        {**RESNET, "model.teacher.mean": [1.0, 2.0]},
        r"model\.teacher: .*mean must be None, or three numbers, of red, .* \[1\.0, 2\.0\]",
    ),
    "a deviation of 0": (
        {**RESNET, "model.teacher.std": [1.0, 2.0, 0]},
        r"model\.teacher: .*std must be None, or three numbers above 0, .*got \[1\.0, 2\.0, 0\]",
    ),
    "classes in a word": (
        {**RESNET, "model.teacher.num_classes": "three"},
        r"model\.teacher: .*num_classes must be None, or at least 1, got 'three'",
    ),
    "classes of a config's": (
        {**RESNET, "model.teacher.num_classes": 7, "model.teacher.model": dict(type="X")}
        | {"model.teacher.checkpoint": __file__},
        r"model\.teacher: .*model\.teacher\.num_classes is of timm's models alone, got 7: a X has",
    ),
    "an accuracy among none": (
        {"model.head.topk": 0},
        r"model\.head: .*topk must be a whole number of at least 1, or several, got 0",
    ),
    "a share in a word": (
        {**RESNET, "model.head.distill_loss": dict(type="mmspike.cls.HardDistillation", alpha="x")},
        r"model\.head\.distill_loss: .*alpha must be a number from 0 to 1, got 'x'",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_is_one_line(problem, config):
    options, message = PROBLEMS[problem]
    with pytest.raises(SystemExit, match=message) as error:
        check(config, options)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("preflight: ")
    places = {line.split(": ")[0] for line in lines[1:]}
    assert len(lines) == 1 + len(places) <= 3  # names are wrong in both splits


NOTHING_WRONG = {
    "as it is": ({}, 0),
    "a batch of all images": ({"train_dataloader.batch_size": 48}, 0),
    "a batch that is not full": (
        {"train_dataloader.batch_size": 49, "train_dataloader.drop_last": False},
        0,
    ),
    "a batch without end": (
        {
            "train_dataloader.batch_size": 49,
            "train_dataloader.sampler": dict(type="InfiniteSampler"),
            "train_cfg": dict(_delete_=True, type="IterBasedTrainLoop", max_iters=60),
        },
        0,
    ),
    "written otherwise": (names("Dark", "LIGHT", "striped"), 0),
    "other names": (names("night", "day", "lines"), 2),
    "one other name": (names("dark", "bright", "striped"), 2),
    "the names of the folders": (names("dark", "light", "striped"), 0),
    "three of three": ({"val_evaluator.topk": [1, 3]}, 0),
    "a teacher": (RESNET, 0),
}


@pytest.mark.parametrize("case", NOTHING_WRONG)
def test_what_may_be_meant_is_no_problem(case, config):
    options, warnings = NOTHING_WRONG[case]
    said = [text for text in check(config, options) if "not the names of the folders" in text]
    assert len(said) == warnings
    if case == "one other name":
        assert said[0].endswith("which are taken in their order: light is bright")


def test_testing_is_checked_too_and_needs_no_teacher(config):
    check(config, {"model.head.distillation": True}, mode="test")
    with pytest.raises(SystemExit, match=r"test_evaluator\.topk: is \[1, 5\]"):
        check(config, {"test_evaluator.topk": [1, 5]}, mode="test")


def test_training_does_not_begin(config, tmp_path):
    options = ["--work-dir", tmp_path, "--cfg-options", "val_evaluator.topk=[1,5]"]
    out = run("train.py", config, *options, ok=False)
    assert out.strip().splitlines()[-1].startswith("- val_evaluator.topk: is [1, 5], but model.he")
    assert "Traceback" not in out
    assert "Epoch(train)" not in out
