"""The command-line tools that count energy and draw spikes, end to end."""

from __future__ import annotations

import json
import runpy
import time

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.tools.helpers import run

SEGMENTOR = "configs/semantic_fpn_metaspike_shapes.py"
DETECTOR = "configs/mask_rcnn_metaspike_shapes.py"


def test_energy_of_a_detector_on_its_validation_set(shapes_root, tmp_path):
    out = run(
        "analysis_tools/get_energy.py",
        DETECTOR,
        "--num-images",
        2,
        "--out",
        tmp_path / "energy",
        "--image-layer",
        "per_step",
        "--cfg-options",
        f"val_dataloader.dataset.data_root={shapes_root}/",
        "model.backbone.time_steps=2",
    )
    assert "RANDOM WEIGHTS" in out
    assert "roi_head.bbox_head.shared_fcs.0.layer" in out
    assert "image layer charged per step" in out
    report = json.loads((tmp_path / "energy/energy.json").read_text())
    assert (report["num_images"], report["time_steps"]) == (2, 2)
    assert report["conventions"]["image_layer"] == "per_step"
    assert report["total"]["energy_mj"] > 0
    assert (tmp_path / "energy/energy.csv").read_text().count("\n") == 1 + len(report["layers"])
    for name in ("energy_by_layer.png", "firing_rates.png", "energy_by_part.png"):
        assert cv2.imread(str(tmp_path / "energy" / name)) is not None


@pytest.mark.parametrize("what", ["image", "noise"])
def test_energy_of_a_segmentor_on_one_image(what, shapes_root, tmp_path):
    image = next((shapes_root / "val").iterdir())
    data = ["--data", image] if what == "image" else ["--shape", 72, 100]
    tool = "analysis_tools/get_energy.py"
    out = run(tool, SEGMENTOR, *data, "--brief", "--borders", "exact", "--out", tmp_path)
    assert (image.name if what == "image" else "noise, 72 x 100") in out
    assert "backbone.stages.3.blocks.0.mixer.q_conv" not in out
    report = json.loads((tmp_path / "energy.json").read_text())
    stem = report["layers"][0]
    size = [128, 128] if what == "image" else [72, 100]
    assert stem["input_shape"] == [1, 3, *size]
    assert report["firing_rate"] > 0.02


def test_runs_of_a_config_go_to_folders_of_their_own(monkeypatch, tmp_path):
    """As mmengine's runner has it: each its own, by the time; within a second, by a number, too."""
    monkeypatch.chdir(tmp_path)
    tool = runpy.run_path(str(ROOT / "tools/analysis_tools/get_energy.py"))
    folders = []
    strftime = time.strftime
    for now in (1e9, 1e9 + 1, 1e9, 1e9):
        monkeypatch.setattr(
            time, "strftime", lambda form, now=now: strftime(form, time.gmtime(now))
        )
        folders.append(str(tool["make_folder"]("configs/a/net.py")))
    names = ("0", "1", "0_2", "0_3")
    assert folders == [f"work_dirs/energy/net/20010909_01464{name}" for name in names]
    assert all((tmp_path / folder).is_dir() for folder in folders)


def test_spikes_of_an_image_are_drawn(tmp_path):
    image = tmp_path / "image.png"  # 100 x 120 is padded to 128 x 128 by the detector
    cv2.imwrite(str(image), np.random.randint(0, 256, (100, 120, 3), dtype=np.uint8))
    options = ["--cfg-options", "model.backbone.time_steps=2"]
    tool, picture = "analysis_tools/spike_map.py", tmp_path / "new/spikes.png"
    out = run(tool, image, DETECTOR, "--out", picture, *options)
    parts = [line.split(":")[0] for line in out.splitlines() if line.endswith("%")]
    assert parts == ["Stem", *(f"Stage {i}" for i in range(1, 5)), "Neck", "RPN head"]
    assert cv2.imread(str(picture)) is not None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none.py",), "no file none.py"),
        ((SEGMENTOR, "none.pth"), "no file none.pth"),
        ((SEGMENTOR, "--data", "none.png"), "--data: no file none.png"),
        ((SEGMENTOR, "--data", "README.md"), "README.md is no image"),
        (("README.md", "--shape", 8, 8), "README.md is no config"),
        ((SEGMENTOR, "--shape", 8, 8, "--device", "cuda:9"), "--device cuda:9"),
        ((SEGMENTOR, "--shape", 0, 5), "--shape must be two positive numbers"),
        ((SEGMENTOR, "--shape", 8, 8, "--num-images", 3), "--num-images goes with"),
        ((SEGMENTOR, "--shape", 8, 8, "--ac-pj", -1), "ac_pj must be positive"),
        (("configs/semantic_fpn_metaspike_voc12.py",), "give an image with --data, or --shape"),
    ],
)
def test_energy_refuses(args, message, tmp_path):
    out = run("analysis_tools/get_energy.py", *args, "--out", tmp_path / "new", ok=False)
    assert message in out
    assert "Traceback" not in out
    assert not (tmp_path / "new").exists()
