"""The comparison of models: trainings over seeds, the ANN twin, tables and figure."""

from __future__ import annotations

import csv
import json
import re
import runpy
import sys

import cv2
import matplotlib.pyplot as plt
import pytest
import torch
from mmengine.config import Config

from tests.conftest import ROOT
from tests.energy.test_formats import cells_of
from tests.overlaps import overlapping_texts
from tests.tools.helpers import run
from tests.trained import MODEL, SEGMENTOR, WORKERS

TOOL = "analysis_tools/compare.py"
SEG = "configs/semantic_fpn_metaspike_shapes.py"
TRAIN = ["train_cfg.max_iters=2", "train_cfg.val_interval=9", "default_hooks.checkpoint.interval=2"]


def write_config(path, base, options):
    """A config file that inherits another, with options of a command line."""
    from mmspike.engine.command_line import parse_options

    cfg = Config.fromfile(ROOT / base)
    cfg.merge_from_dict(parse_options(options))
    cfg.dump(path)
    return path


@pytest.fixture(scope="module")
def compared(shapes_root, tmp_path_factory):
    """A segmentor with spikes and with integers, their twin, and the arguments of all that."""
    folder = tmp_path_factory.mktemp("compare")
    data = [f"{x}_dataloader.dataset.data_root={shapes_root}/" for x in ("train", "val", "test")]
    common = [*data, *WORKERS, *TRAIN, *MODEL]
    seg = write_config(folder / "seg.py", SEG, [*common, *SEGMENTOR])
    integers = [*common, *SEGMENTOR, "model.neuron_cfg.type=mmspike.IntegerLIF"]
    integers = write_config(folder / "integers.py", SEG, [*integers, "model.neuron_cfg.levels=4"])
    args = ["--work-dir", folder / "work", "--speed-images", 1]
    options = ["--cfg-options", "model.backbone.time_steps=2"]
    twin = ["--twin", "--twin-options", "optim_wrapper.optimizer.lr=1e-3"]
    out = run(TOOL, seg, integers, *twin, "--seeds", 1, *args, *options)
    return folder, out, (seg, args, options)


def test_model_and_twin_are_trained_and_written_down(compared):
    folder, out, _ = compared
    work = folder / "work"
    names = [line.split("] ")[1].split(" (")[0] for line in out.splitlines() if line[:1] == "["]
    assert names == ["seg, seed 0", "seg_ann, seed 0", "integers, seed 0"]
    content = json.loads((work / "comparison.json").read_text())
    ours, twin, integers = content["models"]
    about = [[m[k] for k in ("kind", "time_steps", "levels", "runs")] for m in content["models"]]
    assert about == [["SNN", 2, "1", 1], ["ANN twin", 1, None, 1], ["SNN", 2, "4", 1]]
    assert twin["rate_per_frame"] is None
    assert twin["spikes_per_step"] is None
    for model, levels in ((ours, 1), (integers, 4)):
        assert 0 < model["rate_per_frame"] < 100
        assert model["rate_per_frame"] == pytest.approx(100 * model["spikes_per_step"] / levels)
    assert all(0 <= m["train_minutes"] < 5 for m in content["models"])
    assert any("seg_ann is the twin of seg and integers" in note for note in content["notes"])
    assert any("included, on 1 CPU thread." in note for note in content["notes"])
    assert ours["params_m"] == twin["params_m"]
    assert twin["energy_mj"] == pytest.approx(twin["ann_energy_mj"], rel=0.02)
    assert 0 < ours["energy_mj"] < twin["energy_mj"]
    assert ours["energy_sd_mj"] > 1e-6 > twin["energy_sd_mj"]  # spikes depend on the image
    assert any("The ANN twin is the same network" in note for note in content["notes"])
    weights = [
        torch.load(p, weights_only=False) for p in sorted(work.glob("*/*/training/iter_2.pth"))
    ]
    values = {w["state_dict"]["decode_head.conv_seg.weight"].sum().item() for w in weights}
    assert len(values) == 3  # three trainings


def test_tables_can_be_read_and_figures_are_there(compared):
    work = compared[0] / "work"
    rows = list(csv.DictReader((work / "comparison.csv").open()))
    models = json.loads((work / "comparison.json").read_text())["models"]
    assert [r["model"] for r in rows] == ["seg", "seg_ann", "integers"]
    for row, model in zip(rows, models, strict=True):
        assert float(row["mIoU"]) == model["mIoU"]
        assert float(row["energy_mj"]) == model["energy_mj"]
        assert "rate_per_frame decode_head" in row
    cells = cells_of((work / "comparison.tex").read_text())
    assert cells[0][:6] == ["model", "kind", "T", "D", "runs", r"mIoU, \%"]
    assert [row[0] for row in cells[1:]] == ["seg", r"seg\_ann", "integers"]
    assert [row[3] for row in cells[1:]] == ["1", "-", "4"]
    assert re.fullmatch(r"[\d.]+ \$\\pm\$ [\d.]+", cells[1][6])
    table = (work / "comparison.md").read_text().splitlines()
    assert len({line.count("|") for line in table[:4]}) == 1
    assert cv2.imread(str(work / "comparison.png")).std() > 1
    assert (work / "comparison.pdf").read_bytes().startswith(b"%PDF")


def test_what_is_finished_is_not_trained_again(compared):
    folder, _, (seg, args, options) = compared
    weights = folder / "work/seg/seed_0/training/iter_2.pth"
    before = weights.stat().st_mtime_ns
    (folder / "work/seg/seed_0/trained.json").write_text(json.dumps({"checkpoint": weights.name}))
    out = run(TOOL, seg, "--seeds", 2, "--out", folder / "out", *args, *options)
    assert out.count("trained already") == 1
    assert len(re.findall(r"trained in \d+ s", out)) == 1
    assert weights.stat().st_mtime_ns == before
    (row,) = csv.DictReader((folder / "out/comparison.csv").open())
    assert row["runs"] == "2"
    assert float(row["rate_per_frame_sd"]) > 0  # two trainings
    assert 0 <= float(row["train_minutes"]) < 5
    seeds = json.loads((folder / "out/comparison.json").read_text())["runs"]
    assert [run["seed"] for run in seeds] == [0, 1]
    notes = (folder / "out/comparison.md").read_text()  # an earlier version noted no device
    assert "on 1 CPU thread and, others, on a device that was not noted." in notes
    more = [*options, "optim_wrapper.optimizer.lr=0.5"]
    out = run(TOOL, seg, "--seeds", 1, *args, *more, ok=False)
    assert "seed_0 holds a run with other settings" in out
    assert "lr=0.5" in out
    assert "Traceback" not in out


def test_a_training_that_fails_is_shown(compared, tmp_path):
    seg, _, options = compared[2]
    bad = [*options, "train_dataloader.dataset.data_root=nowhere/"]
    out = run(TOOL, seg, "--seeds", 1, "--work-dir", tmp_path, *bad, ok=False)
    assert "compare: the training of seg, seed 0 failed" in out
    assert "nowhere/" in out


def test_checkpoints_are_measured_as_the_test_tool_does(trained_segmentor, tmp_path):
    args = ["--checkpoints", trained_segmentor.checkpoint, "--work-dir", tmp_path, "--per-class"]
    out = run(TOOL, trained_segmentor.config, *args, "--cfg-options", *trained_segmentor.options)
    (row,) = json.loads((tmp_path / "comparison.json").read_text())["models"]
    assert row["mIoU"] == pytest.approx(trained_segmentor.metric["mIoU"], abs=0.02)
    assert row["dataset"] == "shapes"
    assert row["num_images"] == 16
    classes = [v for k, v in row.items() if re.fullmatch(r"IoU\.\w+(?<!_sd)", k)]
    assert sum(classes) / 4 == pytest.approx(row["mIoU"], abs=0.02)
    assert "| IoU.circle, % |" in out
    assert row["ann_energy_mj"] == pytest.approx(4.6 * row["gmacs"])
    assert row["ms_per_image"] > 0
    assert row["peak_mib"] > 100


def test_some_images_of_a_detector_are_scored_by_themselves(trained_detector, tmp_path):
    args = ["--checkpoints", trained_detector.checkpoint, "--work-dir", tmp_path]
    run(
        TOOL, trained_detector.config, *args, "--num-images", 4, "--cfg-options",
        *trained_detector.options,
    )  # fmt: skip
    (row,) = json.loads((tmp_path / "comparison.json").read_text())["models"]
    assert row["num_images"] == 4
    # of all 16 images, found on 4: a quarter of that
    assert row["bbox mAP"] > 60 * trained_detector.metric["coco/bbox_mAP"]


@pytest.mark.parametrize(
    ("trained", "given", "kept"),
    [
        ([], [], {"a_ann": ["a", "b"], "c_ann": ["c"]}),
        (["b_ann"], [], {"b_ann": ["a", "b"], "c_ann": ["c"]}),  # by an earlier command
        (["a_ann", "b_ann"], [], {"a_ann": ["a", "b"], "c_ann": ["c"]}),
        ([], ["b"], {"a_ann": ["a"], "b_ann": ["b"], "c_ann": ["c"]}),
    ],
    ids=["new", "the second", "both", "a checkpoint"],
)
def test_one_twin_of_several_is_the_one_that_is_there(trained, given, kept, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools/analysis_tools"), *sys.path])
    tool = runpy.run_path(str(ROOT / "tools/analysis_tools/compare.py"))
    for name in trained:
        (tmp_path / name).mkdir()
    models = []
    for name, width, work_dir in (("a", 16, "x"), ("b", 16, "y"), ("c", 24, "x")):
        cfg = Config(dict(model=dict(type="Net", width=width), work_dir=work_dir))
        run = tool["Run"](f"{name}_ann", f"{name}.py", cfg, True, tmp_path / f"{name}_ann")
        run.twin_of, run.checkpoint = [name], "b.pth" if name in given else None
        models.append(run)
    assert {run.name: run.twin_of for run in tool["one_of_each_twin"](models)} == kept


@pytest.mark.parametrize(
    ("logs", "minutes"),
    [
        (
            [[("00", "Config:"), ("01", "Saving checkpoint at 2 iterations"), ("04", "Iter(val)")]],
            4,
        ),
        (  # stopped and resumed: what came after the checkpoint was done again
            [
                [("00", "a"), ("03", "Saving checkpoint at 5 iterations"), ("09", "Iter(train)")],
                [("20", "a"), ("22", "Saving checkpoint at 9 iterations"), ("25", "Iter(val)")],
            ],
            3 + 5,
        ),
        ([[("00", "a"), ("09", "Iter(train)")], [("20", "a"), ("25", "Iter(val)")]], 5),
        ([[]], None),
        ([], None),
    ],
)
def test_time_of_a_training_is_that_of_its_logs(logs, minutes, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools/analysis_tools"), *sys.path])
    times = runpy.run_path(str(ROOT / "tools/analysis_tools/training_time.py"))
    for i, lines in enumerate(logs):
        (tmp_path / f"{i}").mkdir()
        text = [f"2026/11/27 10:{m}:00 - mmengine - INFO - {words}" for m, words in lines]
        (tmp_path / f"{i}/{i}.log").write_text("\n".join(["    lr=0.1", *text, "", "    x"]))
    assert times["training_minutes"](tmp_path) == minutes


@pytest.fixture
def plots(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools/analysis_tools"), *sys.path])
    return runpy.run_path(str(ROOT / "tools/analysis_tools/compare_plots.py"))


def test_figure_of_many_models_has_no_text_on_another(plots):
    models = []
    for i, (config, metric) in enumerate([("mask_rcnn.py", "bbox mAP"), ("fpn.py", "mIoU")]):
        for steps in (1, 2, 4):
            costs = dict(energy_mj=0.2 * steps, energy_sd_mj=0.1, rate_per_frame=20.0 - steps)
            model = dict(config=config, kind="SNN", time_steps=steps, ms_per_image=40.0 * steps)
            model["levels"] = "4" if i else "1"
            models.append({**model, **costs, metric: 70.0 + steps + i, f"{metric}_sd": 1.0})
        twin = dict(config=config, kind="ANN twin", time_steps=1, ms_per_image=30.0, levels=None)
        models.append({**twin, "energy_mj": 4.0, "rate_per_frame": None, metric: 71.0})
    figure = plots["comparison_figure"](models)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [
        "bbox mAP, %",
        "mIoU, %",
        "energy per image, mJ",
        "firing rate per frame, %",
        "time per image, ms",
    ]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    twins = ["mask_rcnn (ANN twin)", "fpn (ANN twin)"]
    assert labels == ["mask_rcnn (SNN)", twins[0], "fpn (SNN, D = 4)", twins[1]]
    assert overlapping_texts(figure) == []
    plt.close(figure)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(("t1", "t1-d4"), ["t1 (SNN)", "t1-d4 (SNN)"]), (("t1",), ["mask-rcnn_spikes-4m (SNN)"])],
)
def test_legend_tells_what_differs_and_is_not_cut(plots, steps, expected):
    costs = dict(energy_mj=0.2, rate_per_frame=20.0, ms_per_image=40.0, levels=None)
    models = [
        dict(config=f"mask-rcnn_spikes-4m_{t}_1xb4-1300it_shapes-128x128.py", kind="SNN")
        | dict(time_steps=1, mIoU=70.0, **costs)
        for t in steps
    ]
    figure = plots["comparison_figure"](models)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == expected
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    plt.close(figure)


def test_markers_of_values_that_are_close_are_whole(plots):
    rates = (18.6, 19.2)
    models = [
        dict(config=f"{rate}.py", kind="SNN", time_steps=1, levels="1", mIoU=10 * rate)
        | dict(energy_mj=rate, rate_per_frame=rate, ms_per_image=rate)
        for rate in rates
    ]
    figure = plots["comparison_figure"](models)
    figure.canvas.draw()
    for ax in figure.axes:
        high = max(y for line in ax.lines if line.get_marker() == "o" for y in line.get_ydata())
        (_, top) = ax.transData.transform((0, high))
        radius = 5 / 2 * figure.dpi / 72
        assert top + radius < ax.get_window_extent().y1, ax.get_title()
    plt.close(figure)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none.py",), "no file none.py"),
        ((SEG, "--seeds", 0), "--seeds must be at least 1"),
        ((SEG, "--checkpoints", "a.pth", "b.pth"), "1 configs, 2 --checkpoints"),
        ((SEG, "--checkpoints", "a.pth"), "no file a.pth"),
        ((SEG, "--twin-options", "a=1"), "go with --twin"),
        ((SEG, SEG), "two models are called semantic_fpn_metaspike_shapes"),
    ],
)
def test_compare_refuses(args, message, tmp_path):
    out = run(TOOL, *args, "--work-dir", tmp_path / "new", ok=False)
    assert message in out
    assert "Traceback" not in out
    assert not (tmp_path / "new").exists()


def test_tables_of_detectors_and_segmentors_have_dashes(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools/analysis_tools"), *sys.path])
    tables = runpy.run_path(str(ROOT / "tools/analysis_tools/compare_tables.py"))
    common = dict(params_m=1.0, gmacs=2.0, ann_energy_mj=9.2, peak_mib=9, num_images=4, dataset="d")
    rows = []
    for seed, score in enumerate((70.0, 74.0)):
        spiking = dict(levels=[1, 4], rate_per_frame=20.0 + seed, spikes_per_step=0.4, time_steps=2)
        spiking |= dict(rates_per_frame={"neck": [10.0, 20.0]}, train_minutes=3.0)
        costs = dict(energy_mj=1.0, energy_sd_mj=0.3 + 0.1 * seed, ms_per_image=5.0)
        about = dict(model="a_b", config="a_b.py", is_twin=False, seed=seed)
        rows.append({**about, **common, **spiking, **costs, "metrics": {"bbox mAP": score}})
    other = dict(model="c", config="c.py", is_twin=True, seed=0, metrics={"mIoU": 80.0})
    none = dict(levels=[], rate_per_frame=None, spikes_per_step=None, rates_per_frame={})
    none |= dict(time_steps=1, train_minutes=None)
    rows.append({**rows[0], **other, **none, "energy_sd_mj": None})
    models = tables["aggregate"](rows)
    assert models[0]["bbox mAP_sd"] == pytest.approx(8**0.5)
    assert models[0]["rate_per_frame neck"] == 15.0
    files = tables["write_tables"](models, ["50 % noted"], tmp_path / "t")
    cells = cells_of(files[2].read_text())
    assert cells[1][3:9] == [
        "1 and 4", "2", r"72.0 $\pm$ 2.8", "-", r"1 $\pm$ 0.35", r"20.5 $\pm$ 0.7"
    ]  # fmt: skip
    assert cells[1][9:11] == [r"0.4 $\pm$ 0", r"3 $\pm$ 0"]
    assert cells[2][3:11] == ["-", "1", "-", "80.0", "1", "-", "-", "-"]
    assert cells[1][0] == r"a\_b"
    assert files[2].read_text().startswith("% 50 % noted\n")
    assert "- 50 % noted" in files[0].read_text()
