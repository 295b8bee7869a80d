"""Tools that look into a model say in a line what of it does not fit, and where."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.config import Config

from mmspike.engine.configs import merge_options
from mmspike.engine.inputs import build_model
from mmspike.engine.misfits import misfits_in_words
from tests.conftest import ROOT
from tests.tools.helpers import run

SEGMENTOR = "configs/semantic_fpn_metaspike_shapes.py"
RTMDET = "configs/rtmdet/rtmdet_metaspikeformer-4m_t1_1xb4-1k_shapes-128x128.py"
MISFITS = {
    "images of other channels": (
        *(SEGMENTOR, ["model.backbone.in_channels=4"]),
        r"model\.backbone\.in_channels is 4, but model\.data_preprocessor\.mean has 3 values",
    ),
    "neck": (
        *(SEGMENTOR, ["model.neck.in_channels=[16,32,64,99]"]),
        r"neck\.in_channels=\[16, 32, 64, 99\] must be the backbone's channels: \[32, 64, 128, 18",
    ),
    "an argument that is none": (
        *(SEGMENTOR, ["model.backbone.nonsense=4"]),
        r"model\.backbone: MetaSpikeFormer has no argument 'nonsense'; it takes arch, ",
    ),
    "one of a host's necks": (
        *(RTMDET, ["model.neck.0.in_channels=[64,99]"]),
        r"model\.neck\.0: ChannelMapper does not fit what it is given \(neck\.0\.convs\.1\.conv: "
        r".*expected input.* to have 99 channels, but got 180 channels instead\); "
        r"model\.neck\.0\.in_channels is \[64, 99\]$",
    ),
}


@pytest.mark.parametrize(
    ("misfit", "tool"),
    [*((misfit, "get_energy") for misfit in MISFITS), ("one of a host's necks", "explain_fused")],
)
def test_a_model_that_does_not_fit_ends_with_a_line(misfit, tool, tmp_path):
    config, options, message = MISFITS[misfit]
    args = ["--out", tmp_path / "new"] if tool == "get_energy" else []
    args += ["--shape", 64, 64, "--device", "cpu", "--cfg-options", *options]
    out = run(f"analysis_tools/{tool}.py", config, *args, ok=False)
    assert "Traceback" not in out
    assert re.match(f"{tool}: .*{message}", out.strip().splitlines()[-1]), out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("tool", "out"),
    [("analysis_tools/get_energy.py", None), ("analysis_tools/spike_map.py", "spikes.png")],
)
def test_images_of_other_channels_than_the_backbone_reads(tool, out, shapes_root, tmp_path):
    image = next((shapes_root / "val").iterdir())
    args = [image, SEGMENTOR] if out else [SEGMENTOR, "--data", image]
    args += ["--out", tmp_path / (out or ""), "--cfg-options", "model.backbone.in_channels=5"]
    text = run(tool, *args, ok=False)
    assert "Traceback" not in text
    expected = r"model\.backbone: .*to have 5 channels, but got 3 .*model\.backbone\.in_channels i"
    assert re.search(expected, text.strip().splitlines()[-1])


def test_weights_of_another_width_are_told_with_both(tmp_path):
    from mmspike import MetaSpikeFormer

    state = MetaSpikeFormer(dict(embed_dims=[16, 16, 24, 32], num_heads=2)).state_dict()
    file = tmp_path / "narrow.pth"
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in state.items()}}, file)
    args = [SEGMENTOR, file, "--shape", 64, 64, "--out", tmp_path / "new"]
    last = run("analysis_tools/get_energy.py", *args, ok=False).strip().splitlines()[-1]
    assert f"checkpoint {file} is not of this config's model" in last
    assert "stages.0.downsample.layer.weight [8, 3, 7, 7], not [16, 3, 7, 7]" in last
    assert "widths are [16, 16, 24, 32], model.backbone.arch has [32, 64, 128, 180]" in last


def test_an_assertion_of_a_host_is_told_as_it_stands_there():
    from mmdet.models.necks import FPN

    cfg = Config(dict(model=dict(type="Net", neck=dict(in_channels=[4, 8]))))
    net = torch.nn.ModuleDict(dict(neck=FPN([4, 8], 4, 2)))
    net.forward = lambda maps: net["neck"](maps)
    with pytest.raises(SystemExit) as end, misfits_in_words("tool", cfg):
        net([torch.zeros(1, 4, 8, 8)])
    words = "FPN does not fit what it is given (assert len(inputs) == len(self.in_channels))"
    assert str(end.value) == f"tool: model.neck: {words}; model.neck.in_channels is [4, 8]"


def test_images_are_normalised_as_a_runner_does():
    """A ``data_preprocessor`` beside the model is the model's."""
    cfg = Config.fromfile(ROOT / SEGMENTOR)
    cfg.data_preprocessor = cfg.model.pop("data_preprocessor")
    model = build_model(cfg, None, "cpu")
    mean = model.data_preprocessor.mean.flatten().tolist()
    assert mean == pytest.approx(cfg.data_preprocessor["mean"])


def test_other_errors_keep_their_traceback():
    cfg = Config(dict(model=dict(type="Net")))
    for error in (ValueError("of data"), RuntimeError("out of memory"), KeyError("img")):
        with pytest.raises(type(error)), misfits_in_words("tool", cfg):
            raise error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a.b": 1}, r"a\.b=1: a is None, which has no b"),
        ({"b.c.d": 1}, r"b\.c\.d=1: b\.c is 3, which has no d"),
        ({"necks.width": 1}, r"necks is a list, whose parts are necks\.0 to necks\.1"),
        ({"necks.2.width": 1}, r"necks is a list, whose parts are necks\.0 to necks\.1"),
        ({"necks.0": 1}, r"single entries of a list cannot be set; give all of necks"),
        ({"necks.1.width": 7}, {"necks": [{"width": 5}, {"width": 7}]}),
        ({"b.c._delete_": True, "b.c.d": 1}, {"b": {"c": {"d": 1}}}),
        ({"new.part.of": 1}, {"new": {"part": {"of": 1}}}),
    ],
)
def test_options_name_a_key_that_leads_nowhere(options, message):
    before = dict(a=None, b=dict(c=3), necks=[dict(width=5), dict(width=6)])
    cfg = Config(before)
    if isinstance(message, dict):
        merge_options(cfg, options)
        assert cfg.to_dict() == before | message
        return
    with pytest.raises(ValueError, match=message):
        merge_options(cfg, options)
