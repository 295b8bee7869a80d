"""Weights that were trained with other neurons or time steps load, with a line that says so."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS

import mmspike.registry  # noqa: F401
from mmspike.engine.command_line import parse_options
from tests.conftest import ROOT
from tests.tools.helpers import run

WARNING = "was trained with other neurons or time steps, which are not in its weights: "
EVERYWHERE = "backbone, decode_head, neck: "
INTEGERS = ["model.neuron_cfg.type=mmspike.IntegerLIF", "model.neuron_cfg.levels={}"]


def integers(levels):
    return [option.format(levels) for option in INTEGERS]


@pytest.fixture(scope="module")
def checkpoints(trained_segmentor, tmp_path_factory):
    """Its checkpoint, and the same as if it had been trained with integers of up to 4."""
    file = tmp_path_factory.mktemp("integers") / "integers.pth"
    content = torch.load(trained_segmentor.checkpoint, weights_only=False)
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    cfg.merge_from_dict(parse_options(integers(4)))
    content["meta"]["cfg"] = cfg.pretty_text
    torch.save(content, file)
    return {"spikes": trained_segmentor.checkpoint, "integers": file}


CASES = {
    "same": ("spikes", [], None),
    "same, written otherwise": ("spikes", ["model.neck.neuron_cfg.type=LIF"], None),
    "T": ("spikes", ["model.backbone.time_steps=2"], "backbone: T = 1 then, T = 2 now"),
    "tau": (
        "spikes",
        ["model.neuron_cfg.type=mmspike.LIF", "model.neuron_cfg.tau=3.0"],
        EVERYWHERE + "LIF(tau=2.0) then, LIF(tau=3.0) now",
    ),
    "of a part": (
        "spikes",
        ["model.neck.neuron_cfg.type=mmspike.LIF", "model.neck.neuron_cfg.v_threshold=0.5"],
        "neck: LIF(v_threshold=1.0) then, LIF(v_threshold=0.5) now",
    ),
    "type": (
        "spikes",
        integers(2),
        EVERYWHERE + "LIF(tau=2.0, v_threshold=1.0, v_reset=0.0, decay_input=True) then, "
        "IntegerLIF(levels=2, beta=0.5, normalize=True) now",
    ),
    "same D": ("integers", integers(4), None),
    "D": ("integers", integers(2), EVERYWHERE + "IntegerLIF(levels=4) then, IntegerLIF(levels=2)"),
}


@pytest.mark.parametrize("case", CASES)
def test_evaluation_names_both_neurons(case, checkpoints, trained_segmentor, tmp_path):
    file, options, message = CASES[case]
    args = ["--work-dir", tmp_path, "--no-preflight", "--cfg-options", *trained_segmentor.options]
    few = [*options, "test_dataloader.dataset.indices=2"]
    out = run("test.py", trained_segmentor.config, checkpoints[file], *args, *few)
    assert "mIoU: " in out
    lines = [line for line in out.splitlines() if WARNING in line]
    assert len(lines) == (message is not None)
    if message is not None:
        assert f"{checkpoints[file]} {WARNING}{message}" in lines[0]


@pytest.mark.parametrize("resume", [True, False])
def test_trainings_that_go_on_name_both(resume, checkpoints, trained_segmentor, tmp_path):
    file = checkpoints["spikes"]
    args = [trained_segmentor.config, "--work-dir", tmp_path, "--no-preflight"]
    args += ["--resume", file] if resume else []
    options = [*trained_segmentor.options, "model.backbone.time_steps=2"]
    options += ["train_cfg.max_iters=1", "train_dataloader.batch_size=8"]
    options += [] if resume else [f"load_from={file}"]
    out = run("train.py", *args, "--cfg-options", *options)
    (line,) = (line for line in out.splitlines() if WARNING in line)
    assert line.endswith(f"{file} {WARNING}backbone: T = 1 then, T = 2 now")


@pytest.mark.parametrize(("steps", "warned"), [(1, []), (2, ["backbone: T = 1 then, T = 2 now"])])
def test_pretrained_weights_of_a_whole_model_name_theirs(steps, warned, checkpoints):
    arch = Config.fromfile(ROOT / "configs/semantic_fpn_metaspike_shapes.py").model.backbone.arch
    arch.update(embed_dims=[32, 48, 64, 96], num_heads=2)
    init = dict(type="Pretrained", checkpoint=str(checkpoints["spikes"]))
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = MMLogger.get_instance(f"steps-{steps}")
    logger.addHandler(handler)
    cfg = dict(type="mmspike.MetaSpikeFormer", arch=arch, time_steps=steps, init_cfg=init)
    MODELS.build(cfg).init_weights()
    assert [text.split(WARNING)[1] for text in said if WARNING in text] == warned
