"""The tools on a tiny classifier that predicts: testing, counting, converting, transferring."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import runpy
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmspike.engine.inputs import build_model
from mmspike.native import library
from tests.conftest import ROOT
from tests.tools.helpers import run
from tests.trained import read_line

BASE = ROOT / "configs/classification/metaspikeformer-1m_t1_1xb32-9e_shapes-64x64.py"
CLASSES = ("dark", "light", "striped")
ARCH = ["model.backbone.arch.embed_dims=[16,16,24,32]", "model.backbone.arch.num_heads=2"]
CONFIG = """
_base_ = "{base}"
epochs = 12
model = dict(
    neuron_cfg=dict(type="mmspike.IntegerLIF"),
    backbone=dict(arch=dict(embed_dims=[16, 16, 24, 32], num_heads=2), attn_init_size=(32, 32)),
    head=dict(in_channels=32),
)
data_root = "{root}/"
pipeline = [dict(type="LoadImageFromFile", _scope_="mmpretrain"), dict(type="PackInputs")]
loading = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, pipeline=pipeline),
)
train_dataloader = dict(batch_size=8, **loading)
val_dataloader = loading
test_dataloader = loading
val_evaluator = dict(topk=(1, 2))
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=True, begin=6, end=epochs)]
default_hooks = dict(logger=dict(interval=3), checkpoint=dict(interval=epochs))
custom_hooks = [dict(type="mmspike.SpikeStatsHook", interval=3)]
"""


def write_images(root, size=32):
    """Class folders: dark, light and striped noise."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for label in CLASSES:
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (size, size, 3))
                pixels += 150 if label == "light" else 0
                pixels[:, ::8] = 255 if label == "striped" else pixels[:, ::8]
                assert cv2.imwrite(str(root / split / label / f"{i}.png"), pixels.astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "folders")


@pytest.fixture(scope="module")
def config(root, tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "tiny.py"
    file.write_text(CONFIG.format(base=BASE, root=root))
    return file


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """A checkpoint, and what training printed."""
    work = tmp_path_factory.mktemp("trained") / "work"
    out = run("train.py", config, "--work-dir", work)
    return work / "epoch_12.pth", out


def accuracies(out):
    return read_line(out, r"accuracy/top1: [\d.]+")


@pytest.fixture(scope="module")
def tested(trained, config, tmp_path_factory):
    work = tmp_path_factory.mktemp("test")
    return accuracies(run("test.py", config, trained[0], "--work-dir", work))


def test_training_learns_and_logs_accuracies_and_firing_rates(trained, tested):
    _, out = trained
    assert re.search(r"firing_rate: 0\.\d+", out)
    assert tested["accuracy/top1"] > 60  # of three classes
    assert tested["accuracy/top2"] >= tested["accuracy/top1"]


@pytest.mark.parametrize("form", ["--deploy", "--unroll"])
def test_folded_and_unrolled_it_scores_the_same(form, trained, tested, config, tmp_path):
    out_file, shown = tmp_path / "scores.pkl", tmp_path / "shown"
    args = [form, "--out", out_file, "--show-dir", shown, "--work-dir", tmp_path]
    out = run("test.py", config, trained[0], *args)
    expected = {"--deploy": "norms folded", "--unroll": "to 4 binary frames a step"}[form]
    assert expected in out
    assert "was trained with" not in out
    assert accuracies(out)["accuracy/top1"] == pytest.approx(tested["accuracy/top1"], abs=1e-3)
    predictions = pickle.loads(out_file.read_bytes())
    scores = torch.stack([p["pred_score"] for p in predictions])
    assert scores.shape == (12, 3)
    labels = torch.tensor([int(p["gt_label"]) for p in predictions])
    right = 100 * (scores.argmax(1) == labels).float().mean().item()
    assert right == pytest.approx(tested["accuracy/top1"], abs=1e-3)
    assert len(list(shown.glob("*.png"))) >= 4  # named after the images


def test_a_pickle_file_has_to_be_named(trained, config):
    out = run("test.py", config, trained[0], "--out", "folder", ok=False)
    assert "--out: a classifier's predictions go to a .pkl file, got folder" in out


def test_classes_of_an_image(trained, config, root, tmp_path):
    image, picture = root / "val/light/0.png", tmp_path / "picture.png"
    out = run("image_demo.py", image, config, trained[0], "--out", picture, "--device", "cpu")
    assert re.search(r"picture\.png: (dark|light|striped) \d+\.\d%, ", out)
    assert cv2.imread(str(picture)).shape == (512, 512, 3)


def test_energy_of_a_classifier(trained, config, root, tmp_path):
    args = ["--num-images", 2, "--out", tmp_path]
    out = run("analysis_tools/get_energy.py", config, trained[0], *args)
    report = json.loads((tmp_path / "energy.json").read_text())
    assert report["num_images"] == 2
    row = next(row for row in report["layers"] if row["name"] == "head.head")
    assert row["macs"] == 3 * 32
    assert "head.head" in out
    for name in ("head", "head.head"):  # small numbers are none, all others
        (cells,) = (x.split("|")[1:-1] for x in out.splitlines() if x.startswith(f"| {name} "))
        numbers = [float(x) for x in map(str.strip, cells) if re.fullmatch(r"[\d.e-]+", x)]
        part = report["parts"]["head"]
        cost = part["energy_mj"] if name == "head" else 1e3 * row["energy_mj"]
        assert any(x == pytest.approx(cost, rel=0.01) for x in numbers)
        assert pytest.approx(3 * 32 / (1e9 if name == "head" else 1e6), rel=0.01) in numbers
    args = ["--data", root / "val/light/0.png", "--brief", "--out", tmp_path / "image"]
    out = run("analysis_tools/get_energy.py", config, *args)
    assert "0.png; RANDOM WEIGHTS" in out


def test_report_of_a_classifier_shows_images_of_all_classes(trained, config, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(trained[0].parent, work)
    out = run("analysis_tools/report_run.py", config, trained[0], work, "--num-images", 6)
    for name in ("predictions.png", "curves.png", "firing_rates.png"):
        assert cv2.imread(str(work / name)).std() > 1
        assert str(work / name) in out
    assert re.search(r"^loss: \d\.\d{3} at the start, 0\.\d{3} at the end$", out, re.M)
    validated = r"^the last validation in the log, after step 72 of training:\ntop-1: [01]\.\d{3}\n"
    assert re.search(rf"{validated}top-2: [01]\.\d{{3}}$", out, re.M)
    assert f"of the checkpoint {trained[0]}, on 6 images:\n" in out
    assert re.search(r"^firing rate: \d+\.\d% .*per binary frame \(D = 4\)$", out, re.M)
    energy, ann = re.search(r"^energy: (\S+) mJ per image, as an ANN (\S+)$", out, re.M).groups()
    assert 0 < float(energy) < float(ann)
    rates = json.loads((work / "firing_rates.json").read_text())
    assert "head.neuron" in rates
    assert all(0 <= rate <= 1 for rate in rates.values())
    assert "an earlier report" not in out
    relu = ["--cfg-options", "model.neuron_cfg.type=ReLU", "model.neuron_cfg._delete_=True"]
    out = run("analysis_tools/report_run.py", config, trained[0], work, "--num-images", 1, *relu)
    assert "firing rate: none" in out
    told = [line for line in out.splitlines() if line.startswith(f"{work}/firing_rates.")]
    assert len(told) == 3
    assert all(x.endswith(" is of an earlier report, not of this model") for x in told)
    assert f"\n{work}/predictions.png\n" in out


def test_some_images_of_a_classifier_are_of_all_classes(config):
    from mmspike.engine.inputs import val_batches

    cfg = Config.fromfile(config)
    loader = val_batches(cfg, 3)
    assert [int(batch["data_samples"][0].gt_label) for batch in loader] == [0, 1, 2]
    measures = runpy.run_path(str(ROOT / "tools/analysis_tools/compare_measures.py"))
    assert measures["choose_images"](cfg, 3) == [0, 5, 11]  # of four of each class


def test_classifiers_are_compared(trained, tested, config, tmp_path):
    """Measured as testing measures."""
    args = ["--checkpoints", trained[0], "--speed-images", 1, "--work-dir", tmp_path]
    out = run("analysis_tools/compare.py", config, *args)
    (ours,) = json.loads((tmp_path / "comparison.json").read_text())["models"]
    for k in (1, 2):
        assert ours[f"top-{k}"] == pytest.approx(tested[f"accuracy/top{k}"], abs=1e-3)
    assert [ours["levels"], ours["kind"], ours["num_images"]] == ["4", "SNN", 12]
    assert ours["dataset"] == "folders"
    assert ours["rate_per_frame"] == pytest.approx(100 * ours["spikes_per_step"] / 4)
    assert 0 < ours["energy_mj"] < ours["ann_energy_mj"]
    assert "| top-1, % |" in out
    assert "| top-2, % |" not in out  # in the CSV file
    assert "of all 12 test images of folders." in out
    assert "were trained with other settings" not in out


def test_a_comparison_names_metrics_that_it_does_not_know(trained, config, tmp_path):
    args = ["--checkpoints", trained[0], "--num-images", 2, "--speed-images", 1]
    args += ["--work-dir", tmp_path, "--cfg-options", "test_evaluator.thrs=[0.0,0.5]"]
    args += ["test_evaluator.topk=1"]
    out = run("analysis_tools/compare.py", config, *args)
    words = "no finite metric that is known here; test_evaluator gave accuracy/top1_thr-0.00, "
    assert out.count(f"{words}accuracy/top1_thr-0.50") == 2  # the second in a note


def test_a_comparison_tells_of_other_settings_and_of_how_many_images_it_is(
    trained, config, tmp_path
):
    args = ["--checkpoints", trained[0], "--time-steps", 1, 2, "--num-images", 3]
    args += ["--speed-images", 1, "--work-dir", tmp_path, "--cfg-options", "test_evaluator.topk=2"]
    console, table, *_ = run("analysis_tools/compare.py", config, *args).split("\n\n")
    assert len(re.findall(r"^    top-2 \d+\.\d\d %, ", console, re.M)) == 2
    assert "| top-2, % |" in table
    warning = "WARNING: the weights of tiny_t2 (epoch_12.pth) were trained with other settings, "
    warning += "which are not in them: backbone: T = 1 then, T = 2 now."
    assert console.count("WARNING: the weights") == console.count(warning) == 1
    for ending in (".md", ".tex", ".json"):
        notes = (tmp_path / f"comparison{ending}").read_text()
        assert notes.count("WARNING: the weights") == notes.count(warning) == 1
        assert "rates are of 3 test images of folders (--num-images 3)." in notes


@pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")
@pytest.mark.parametrize("form", ["--train", "--deploy"])
def test_all_layers_but_the_images_run_fused(form, config):
    opts = [form, "--shape", 64, 64, "--device", "cpu"]
    spiking = ["--cfg-options", "model.neuron_cfg.type=mmspike.LIF"]
    out = run("analysis_tools/explain_fused.py", config, *opts, *spiking)
    fused, layers = map(int, re.search(r"fused: (\d+) of (\d+) layers", out).groups())
    assert fused == layers - 1


def test_a_trained_classifier_goes_into_a_detector_and_back_to_the_published_names(
    trained, shapes_root, tmp_path
):
    opts = ["train_cfg.max_iters=1", "train_cfg.val_interval=2", *ARCH]
    opts += ["model.backbone.init_cfg.type=Pretrained"]
    opts += [f"model.backbone.init_cfg.checkpoint={trained[0]}", f"data_root={shapes_root}"]
    opts += ["model.neuron_cfg.type=mmspike.IntegerLIF", "model.neck.in_channels=[16,16,24,32]"]
    opts += ["train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]
    config = "configs/mask_rcnn_metaspike_shapes.py"
    out = run("train.py", config, "--work-dir", tmp_path / "work", "--cfg-options", *opts)
    assert "loaded 823 of 823 backbone tensors from an mmspike classifier" in out

    convert = "model_converters/metaspikeformer2mmspike.py"
    out = run(convert, trained[0], tmp_path / "published.pth", "--to-upstream")
    assert "from an mmspike classifier" in out
    assert "ignored" not in out  # the head is written, too
    published = torch.load(tmp_path / "published.pth")["model"]
    ours = torch.load(trained[0], weights_only=False)["state_dict"]
    assert torch.equal(published["head.weight"], ours["head.head.weight"])
    assert torch.equal(published["downsample1_1.encode_conv.weight"], _stem(ours))
    assert len(published) == 823 + 2
    image = next((shapes_root / "val").iterdir())
    check = "analysis_tools/check_transfer.py"
    lines = [
        run(check, file, image, "--size", 64).splitlines()[-6:]
        for file in (trained[0], tmp_path / "published.pth")
    ]
    assert lines[0] == lines[1]
    assert "T = 1, 2 heads, attn_scale = 0.125, IntegerLIF(levels=4, " in lines[0][0]
    assert "%" in lines[0][-1]


def test_check_transfer_computes_what_was_trained(trained, config):
    spec = importlib.util.spec_from_file_location(
        "check_transfer", ROOT / "tools/analysis_tools/check_transfer.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    model = tool.build(str(trained[0]), None, None)
    cfg = Config.fromfile(config)
    expected = build_model(cfg, str(trained[0]), "cpu")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        scores = expected(images)
        assert scores.std() > 0.1
        torch.testing.assert_close(model(images), scores)


DISTILLED = """
_base_ = "{base}"
model = dict(
    backbone=dict(time_steps=4),
    head=dict(distillation=True),
    teacher=dict(type="mmspike.cls.Teacher", model="{base}", checkpoint="{file}"),
    init_cfg=dict(
        type="Pretrained",
        checkpoint="{file}",
        allow_missing=["head.head_kd"],
        allow_changed=["time_steps"],
    ),
)
train_cfg = dict(max_epochs=1, val_interval=2)
train_dataloader = dict(dataset=dict(indices=8))
"""


@pytest.mark.parametrize("accident", [None, "levels", "missing", "changed"])
def test_from_one_step_to_four_warns_of_accidents_alone(accident, trained, config, tmp_path):
    file = tmp_path / "distilled.py"
    file.write_text(DISTILLED.format(base=config, file=trained[0]))
    changes = {
        None: [],
        "levels": ["model.neuron_cfg.levels=2"],
        "missing": ["model.init_cfg.allow_missing=[]"],
        "changed": ["model.init_cfg.allow_changed=num_heads"],
    }[accident]
    args = ["train.py", file, "--work-dir", tmp_path, "--no-preflight", "--cfg-options"]
    args += ["randomness.seed=0", *changes]
    out = run(*args, ok=accident != "missing")
    warnings = [line for line in out.splitlines() if "WARNING" in line and "weights" in line]
    warnings += [line for line in out.splitlines() if "WARNING" in line and "loaded " in line]
    then = {
        "levels": "IntegerLIF(levels=4) then, IntegerLIF(levels=2) now",
        "changed": "backbone: T = 1 then, T = 4 now",
    }
    assert [w for w in warnings if then.get(accident, "nothing") not in w] == []
    assert len(warnings) == (accident in then)
    if accident == "missing":
        assert "missing: head.head_kd.weight, head.head_kd.bias" in out
        cure = "set model.head.distillation=False; or, to train one, "
        assert f"{cure}model.init_cfg.allow_missing=['head.head_kd']" in out
    else:
        assert "loaded 825 of 827 classifier tensors from an mmspike classifier; new " in out


def _stem(state):
    return state["backbone.stages.0.downsample.layer.weight"]


@pytest.mark.parametrize("tool", ["get_energy", "spike_map", "explain_fused"])
def test_random_weights_need_no_teacher(tool, config, root, tmp_path):
    file = tmp_path / "distilled.py"
    file.write_text(DISTILLED.format(base=config, file="absent.pth"))
    args = {
        "get_energy": [file, "--shape", 32, 32, "--brief", "--out", tmp_path / "energy"],
        "spike_map": [root / "val/light/0.png", file, "--out", tmp_path / "map.png"],
        "explain_fused": [file, "--shape", 32, 32],
    }[tool]
    out = run(f"analysis_tools/{tool}.py", *args)
    assert "absent.pth" not in out
    if tool == "get_energy":
        rows = json.loads((tmp_path / "energy/energy.json").read_text())["layers"]
        assert {"head.head", "head.head_kd"} <= {row["name"] for row in rows}


FAULTS = {
    "no folder": (["data_root=nowhere"], r"there is no folder nowhere/?/?train, which has one for"),
    "classes of the head": (
        ["model.head.num_classes=7"],
        r"model\.head\.num_classes: is 7, but .*",
    ),
    "classes of the data": (
        ["train_dataloader.dataset.metainfo.classes=[a,b]", "model.head.num_classes=2"],
        r"has folders of 3 classes \(dark, light, striped\), but the data set 2 classes \(a, b\)",
    ),
    "teacher": (
        [
            "model.head.distillation=True",
            "model.teacher.type=mmspike.cls.Teacher",
            "model.teacher.model=resnet18",
            "model.teacher.checkpoint=absent.pth",
        ],
        r"model\.teacher\.checkpoint: there is no file absent\.pth; give the teacher's checkpoint",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_before_the_first_step(fault, config, tmp_path):
    changes, message = FAULTS[fault]
    out = run("train.py", config, "--work-dir", tmp_path, "--cfg-options", *changes, ok=False)
    assert re.search(message, out), out[-2000:]
    assert "Traceback" not in out
    assert "Epoch(train)" not in out


def test_folders_that_differ_between_training_and_validation(config, root, tmp_path):
    other = tmp_path / "folders"
    shutil.copytree(root, other)
    (other / "val/light").rename(other / "val/bright")
    out = run(
        "train.py", config, "--work-dir", tmp_path, "--cfg-options", f"data_root={other}", ok=False
    )
    assert "its folders are not those of train_dataloader.dataset: bright, light is in" in out
    for image in (other / "train").glob("*/*.png"):
        image.rename(image.with_suffix(".gif"))
    out = run(
        "train.py", config, "--work-dir", tmp_path, "--cfg-options", f"data_root={other}", ok=False
    )
    assert "those there end in .gif" in out


def test_a_list_of_files_instead_of_folders(config, tmp_path):
    listed = tmp_path / "train.txt"
    listed.write_text("dark/0.png 0\nlight/0.png 5\n")
    args = ["train.py", config, "--work-dir", tmp_path, "--cfg-options"]
    args += [f"train_dataloader.dataset.ann_file={listed}"]
    args += ["train_dataloader.dataset.metainfo.classes=[a,b,c]"]
    out = run(*args, ok=False)
    assert "has the label 5, but there are 3 classes from 0" in out
    listed.write_text("dark/0.png 0\nlight/absent.png 1\n")
    out = run(*args, ok=False)
    assert re.search(r"1 of 2 images of .* are missing, the first is .*light/absent\.png", out)
    listed.write_text("dark/0.png 0\nlight\n")
    assert "line 2 of " in run(*args, ok=False)


def test_a_wrong_teacher_ends_training_with_a_line(trained, config, tmp_path):
    changes = ["model.head.distillation=True", "model.teacher.type=mmspike.cls.Teacher"]
    changes += ["model.teacher.model=resnet18", f"model.teacher.checkpoint={trained[0]}"]
    out = run("train.py", config, "--work-dir", tmp_path, "--cfg-options", *changes, ok=False)
    last = out.strip().splitlines()[-1]
    assert re.match(
        r"model\.teacher \('resnet18'\): checkpoint .* is not of this config's mod", last
    )


GONE = "init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='gone.pth')"


@pytest.mark.parametrize("part", ["model", "model.backbone"])
def test_a_resumed_training_needs_no_file_that_it_started_from(part, trained, config, tmp_path):
    started, work = tmp_path / "started.py", tmp_path / "work"
    given = GONE.replace("_delete_=True, ", "") if part == "model" else f"backbone=dict({GONE})"
    started.write_text(f"_base_ = {str(config)!r}\nmodel = dict({given})\n")
    opts = ["--cfg-options", "train_cfg.max_epochs=13", "train_cfg.val_interval=20"]
    out = run("train.py", started, "--resume", trained[0], "--work-dir", work, *opts)
    assert f"init_cfg: gone.pth is not there, nor needed: resuming {trained[0]}" in out
    assert "Epoch(train) [13][6/6]" in out
    assert "gone.pth" in (work / "started.py").read_text()
    for resumed in ([], ["--resume"]):  # the last from a folder without a checkpoint
        out = run("train.py", started, *resumed, "--work-dir", tmp_path / "new", *opts, ok=False)
        assert f"{part}.init_cfg.checkpoint: there is no file gone.pth; docs/transfer.md" in out
