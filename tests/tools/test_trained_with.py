"""Weights that were trained with other settings load, with a line that says so."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from safetensors import safe_open

import mmspike.registry  # noqa: F401
from mmspike.checkpoints import CheckpointError, load_pretrained, read_checkpoint
from mmspike.engine.command_line import parse_options
from tests.conftest import ROOT
from tests.tools.helpers import run

WARNING = "was trained with other settings, which are not in its weights: "
MEANT = "was trained with other settings, which are not in its weights, as allow_changed says: "
EVERYWHERE = "backbone, decode_head, neck: "
INTEGERS = ["model.neuron_cfg.type=mmspike.IntegerLIF", "model.neuron_cfg.levels={}"]
CONVERT = "model_converters/metaspikeformer2mmspike.py"


def integers(levels):
    return [option.format(levels) for option in INTEGERS]


def as_if(file, out, *options):
    """The same weights, as if they had been trained with some options."""
    content = torch.load(file, weights_only=False)
    cfg = Config.fromstring(content["meta"]["cfg"], ".py")
    cfg.merge_from_dict(parse_options(list(options)))
    content["meta"]["cfg"] = cfg.pretty_text
    torch.save(content, out)
    return out


@pytest.fixture(scope="module")
def checkpoints(trained_segmentor, tmp_path_factory):
    """Its checkpoint, and the same as if it had been trained with other neurons."""
    folder, spikes = tmp_path_factory.mktemp("other"), trained_segmentor.checkpoint
    nodes = ["model.neuron_cfg.type=IFNode", "model.neuron_cfg.v_reset=0.0"]
    return {
        "spikes": spikes,
        "integers": as_if(spikes, folder / "integers.pth", *integers(4)),
        "nodes": as_if(spikes, folder / "nodes.pth", *nodes),
    }


CASES = {
    "same": ("spikes", [], None),
    "same, written otherwise": (
        "spikes",
        ["model.neck.neuron_cfg.type=LIF", "model.backbone.attn_scale=0.125"],
        None,
    ),
    "T": ("spikes", ["model.backbone.time_steps=2"], "backbone: T = 1 then, T = 2 now"),
    "heads and scale": (
        "spikes",
        ["model.backbone.arch.num_heads=4", "model.backbone.attn_scale=0.25"],
        "backbone: num_heads = 2 then, num_heads = 4 now; "
        "backbone: attn_scale = 0.125 then, attn_scale = 0.25 now",
    ),
    "neuron after the attention": (
        "spikes",
        ["model.backbone.attn_neuron_cfg.v_threshold=1.0"],
        "backbone: attn_neuron_cfg = LIF(v_threshold=0.5) then, LIF(v_threshold=1.0) now",
    ),
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
    "a default of spikingjelly's": (
        "nodes",
        ["model.neuron_cfg.type=IFNode", "model.neuron_cfg.v_threshold=2.0"],
        EVERYWHERE + "IFNode(v_threshold=1.0) then, IFNode(v_threshold=2.0) now",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_evaluation_names_both(case, checkpoints, trained_segmentor, tmp_path):
    file, options, message = CASES[case]
    args = ["--work-dir", tmp_path, "--no-preflight", "--cfg-options", *trained_segmentor.options]
    few = [*options, "test_dataloader.dataset.indices=2"]
    out = run("test.py", trained_segmentor.config, checkpoints[file], *args, *few)
    assert "mIoU: " in out
    lines = [line for line in out.splitlines() if WARNING in line]
    assert len(lines) == (message is not None)
    if message is not None:
        assert f"{checkpoints[file]} {WARNING}{message}" in lines[0]


@pytest.mark.parametrize("how", ["resumed", "loaded", "loaded as meant"])
def test_trainings_that_go_on_name_both(how, checkpoints, trained_segmentor, tmp_path):
    file, config = checkpoints["spikes"], ROOT / trained_segmentor.config
    if how == "loaded as meant":
        hook = dict(type="mmspike.FitHook", allow_changed=["time_steps"])
        text = f"_base_ = {str(config)!r}\ncustom_hooks = [{hook!r}]\n"
        config = tmp_path / "meant.py"
        config.write_text(text)
    args = [config, "--work-dir", tmp_path, "--no-preflight"]
    args += ["--resume", file] if how == "resumed" else []
    options = [*trained_segmentor.options, "model.backbone.time_steps=2"]
    options += ["train_cfg.max_iters=1", "train_dataloader.batch_size=8"]
    options += [] if how == "resumed" else [f"load_from={file}"]
    out = run("train.py", *args, "--cfg-options", *options)
    (line,) = (line for line in out.splitlines() if WARNING in line or MEANT in line)
    said = MEANT if how == "loaded as meant" else WARNING
    assert line.endswith(f"{file} {said}backbone: T = 1 then, T = 2 now")
    assert ("WARNING" in line) == (said is WARNING)


@pytest.fixture
def said():
    """What is logged, level and text."""
    lines, handler = [], logging.Handler()
    handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
    MMLogger.get_instance("trained-with").addHandler(handler)
    return lines


def backbone_cfg(checkpoint, **options):
    arch = dict(Config.fromfile(ROOT / "configs/semantic_fpn_metaspike_shapes.py").model.backbone)
    arch = arch["arch"] | dict(embed_dims=[32, 48, 64, 96], num_heads=2)
    keys = ("allow_changed", "allow_missing")
    init = {k: options.pop(k) for k in keys if k in options}
    init |= dict(type="Pretrained", checkpoint=str(checkpoint))
    return dict(type="mmspike.MetaSpikeFormer", arch=arch, init_cfg=init) | options


T_CHANGED = "backbone: T = 1 then, T = 2 now"
FILES = ("as it is", "slim.pth", "slim.safetensors", "published.pth")


@pytest.fixture(scope="module")
def files(checkpoints, tmp_path_factory):
    """The checkpoint, and what the converter makes of it."""
    folder = tmp_path_factory.mktemp("converted")
    found = {"as it is": checkpoints["spikes"]}
    for name in FILES[1:]:
        found[name] = folder / name
        upstream = ["--to-upstream"] if name == "published.pth" else []
        out = run(CONVERT, checkpoints["spikes"], found[name], *upstream)
        assert "WARNING" not in out  # of what the converter's own model has
    return found


@pytest.mark.parametrize("name", FILES)
def test_converted_files_warn_as_their_source_does(name, files, said):
    for options, warned in (
        ({}, []),
        ({"time_steps": 2}, [T_CHANGED]),
        ({"neuron_cfg": dict(type="mmspike.LIF", tau=3.0)}, ["LIF(tau=2.0) then, LIF(tau=3.0)"]),
    ):
        said.clear()
        MODELS.build(backbone_cfg(files[name], **options)).init_weights()
        lines = [text for level, text in said if WARNING in text]
        assert len(lines) == len(warned)
        assert all(w in line for w, line in zip(warned, lines, strict=True))


def test_a_record_is_of_what_counts_and_goes_on_through_conversions(files, tmp_path):
    run(CONVERT, files["slim.safetensors"], tmp_path / "again.pth", "--to-upstream")
    run(CONVERT, tmp_path / "again.pth", tmp_path / "last.safetensors")
    with safe_open(tmp_path / "last.safetensors", "pt") as file:
        record = json.loads(file.metadata()["trained_with"])
    assert record["neuron_cfg"] == {"type": "mmspike.LIF"}
    assert record["backbone"]["time_steps"] == 1
    assert record["backbone"]["arch"]["num_heads"] == 2
    assert record.keys() == {"neuron_cfg", "backbone"}
    assert "init_cfg" not in record["backbone"]


@pytest.mark.parametrize("record", ["[1", "[" * 10_000, '"x"', '{"backbone": 3}', "7"])
def test_a_broken_record_says_nothing(record, files, said, tmp_path):
    content = dict(read_checkpoint(files["slim.pth"]).content)
    content["meta"] = {**content["meta"], "trained_with": record}
    torch.save(content, tmp_path / "broken.pth")
    MODELS.build(backbone_cfg(tmp_path / "broken.pth", time_steps=2)).init_weights()
    assert not [text for level, text in said if "trained with" in text]


def test_a_change_that_is_meant_is_no_warning_and_others_are(files, said):
    meant = dict(allow_changed=["time_steps"], time_steps=2)
    MODELS.build(backbone_cfg(files["slim.pth"], **meant)).init_weights()
    texts = [(level, text) for level, text in said if "trained with" in text]
    assert texts == [("INFO", f"{files['slim.pth']} {MEANT}{T_CHANGED}")]
    said.clear()
    MODELS.build(backbone_cfg(files["slim.pth"], **meant, attn_scale=0.5)).init_weights()
    levels = [level for level, text in said if "trained with" in text]
    assert levels == ["INFO", "WARNING"]
    assert any("WARNING" in level and "attn_scale = 0.125 then" in text for level, text in said)


@pytest.mark.parametrize("value", ["t", ["time_steps", "tau"], 4, [1]])
def test_a_change_that_there_is_not_is_refused(value, files):
    expected = "allow_changed must be some of neuron_cfg, time_steps, num_heads, attn_scale, attn_"
    model = MODELS.build(backbone_cfg(files["slim.pth"]))
    with pytest.raises(CheckpointError, match=expected):
        load_pretrained(model, files["slim.pth"], allow_changed=value)
