"""Other neurons from the command line: one key, any neuron, detectors and segmentors."""

from __future__ import annotations

import json
import re

import pytest
import torch

from tests.tools.helpers import run
from tests.tools.test_tools import options

CONFIGS = {
    "det": "configs/mask_rcnn_metaspike_shapes.py",
    "seg": "configs/semantic_fpn_metaspike_shapes.py",
}


def options_of(host, root, time_steps):
    """Three iterations, no validation."""
    opts = options(root, time_steps)
    if host == "seg":
        opts = [o for o in opts if not re.match(r"(model\.test_cfg|\w+_evaluator)", o)]
    return [*opts, "train_cfg.val_interval=100", "train_dataloader.batch_size=2"]


@pytest.mark.parametrize(
    ("host", "time_steps", "neuron"),
    [
        ("det", 2, "model.neuron_cfg.type=IFNode"),
        ("det", 1, "model.neuron_cfg.type=ReLU"),
        ("seg", 2, "model.neuron_cfg.type=ParametricLIFNode model.neuron_cfg.init_tau=2.5"),
    ],
)
def test_training_takes_any_neuron(host, time_steps, neuron, shapes_root, tmp_path):
    opts = options_of(host, shapes_root, time_steps) + neuron.split()
    out = run("train.py", CONFIGS[host], "--work-dir", tmp_path, *opts)
    losses = [float(x) for x in re.findall(r"\bloss: ([\d.]+)", out)]
    assert len(losses) == 3
    assert len(set(losses)) == 3
    state = torch.load(tmp_path / "iter_3.pth", weights_only=False)["state_dict"]
    learnt = [v.item() for k, v in state.items() if k.endswith("neuron.node.w")]
    if "Parametric" in neuron:
        assert len(learnt) > 80
        assert len({round(w, 6) for w in learnt}) > 40  # each moved by itself
    else:
        assert learnt == []


def test_energy_of_the_twin_on_real_values(tmp_path):
    size = ["--shape", 64, 64, "--brief", "--cfg-options", "model.backbone.time_steps=1"]
    reports = []
    for neuron in ("ReLU", "IFNode"):
        out = tmp_path / neuron
        args = [*size, f"model.neuron_cfg.type={neuron}"]
        run("analysis_tools/get_energy.py", CONFIGS["seg"], "--out", out, *args)
        reports.append(json.loads((out / "energy.json").read_text()))
    relu, spiking = reports
    assert relu["uncounted"] == spiking["uncounted"] == []
    assert relu["neurons"] == []
    assert len(spiking["neurons"]) > 80
    assert relu["total"]["macs"] == spiking["total"]["macs"] > 1e8  # the same network
    assert relu["total"]["energy_mj"] == pytest.approx(relu["total"]["ann_energy_mj"], rel=0.02)
    assert spiking["total"]["energy_mj"] < relu["total"]["energy_mj"] / 5
