"""Weights as trained and as deployed are told apart, however they are loaded."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import load_checkpoint
from safetensors.torch import save_file

from mmspike.backbones import MetaSpikeFormer
from mmspike.checkpoints import CheckpointError, load_pretrained, load_whole, read_checkpoint
from mmspike.deploy import switch_to_deploy
from mmspike.engine.command_line import parse_options
from mmspike.engine.inputs import build_model, noise_batch
from mmspike.fused import can_lay_out
from mmspike.layers.forms import MARK, FormError
from tests.conftest import ROOT
from tests.tools.helpers import run

LOADS = {
    "torch": lambda model, file: model.load_state_dict(read_checkpoint(file).content),
    "not strictly": lambda model, file: model.load_state_dict(
        read_checkpoint(file).content, strict=False
    ),
    "mmengine": lambda model, file: load_checkpoint(model, str(file), map_location="cpu"),
    "whole": load_whole,
    "backbone": load_pretrained,
}


@pytest.fixture(scope="module")
def plain(trained_segmentor):
    cfg = Config.fromfile(ROOT / trained_segmentor.config)
    cfg.merge_from_dict(parse_options(trained_segmentor.options))
    return build_model(cfg, str(trained_segmentor.checkpoint), "cpu"), noise_batch(cfg, (64, 64))


@pytest.fixture(scope="module")
def files(plain, tmp_path_factory):
    """A file of each form."""
    folder, found = tmp_path_factory.mktemp("forms"), {}
    for form in ("plain", "cheapest", "conv3x3"):
        found[form] = folder / f"{form}.pth"
        torch.save(as_form(plain[0], form).state_dict(), found[form])
    return found


def as_form(model, form, **options):
    model = copy.deepcopy(model)
    if form != "plain":
        switch_to_deploy(model, form, **options)
    return model


def scramble(model):
    """Other numbers in every tensor but the marks."""
    state = model.state_dict().items()
    model.load_state_dict({k: t if k.endswith(MARK) else t + 1 for k, t in state})
    return model


@torch.no_grad()
def logits(model, batch):
    data = model.data_preprocessor(batch)
    return model(**data, mode="tensor")


@pytest.mark.parametrize("how", LOADS)
@pytest.mark.parametrize(
    ("given", "here", "cure"),
    [
        ("cheapest", "plain", r"Call mmspike\.deploy\.switch_to_deploy\(model\)"),
        ("plain", "cheapest", "Load them before mmspike.deploy.switch_to_deploy"),
        ("conv3x3", "cheapest", "Switch the model with the rep_conv of the weights"),
    ],
)
def test_refuses_the_other_form_and_changes_nothing(plain, files, how, given, here, cure):
    model = as_form(plain[0], here)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises((FormError, CheckpointError), match=cure):
        LOADS[how](model, files[given])
    for name, tensor in model.state_dict().items():
        if given != "conv3x3" or how in ("whole", "backbone"):  # else norms are folded the same
            assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("how", [how for how in LOADS if how != "backbone"])
@pytest.mark.parametrize("form", ["plain", "cheapest", "conv3x3"])
def test_loads_its_own_form(plain, files, how, form):
    model, batch = plain
    expected = logits(as_form(model, form), batch)
    other = scramble(as_form(model, form))
    assert not torch.equal(logits(other, batch), expected)
    LOADS[how](other, files[form])
    assert torch.equal(logits(other, batch), expected)
    assert expected.std() > 0.1


@pytest.mark.skipif(not can_lay_out(), reason="no oneDNN")
@pytest.mark.parametrize("lay_out", [True, False])
def test_laid_out_or_not_is_one_form(plain, files, lay_out):
    model, batch = plain
    other = scramble(as_form(model, "cheapest", lay_out=lay_out))
    load_whole(other, files["cheapest"])
    expected = as_form(model, "cheapest", lay_out=lay_out)
    assert torch.equal(logits(other, batch), logits(expected, batch))


def test_a_deployed_backbone_is_a_deployed_backbones(plain, files, tmp_path):
    model = plain[0]
    backbone = scramble(as_form(model.backbone, "cheapest"))
    report = load_pretrained(backbone, files["cheapest"])
    assert report.fits
    expected = as_form(model.backbone, "cheapest").state_dict()
    assert all(torch.equal(t, expected[k]) for k, t in backbone.state_dict().items())
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    save_file(state, tmp_path / "backbone.safetensors")
    load_pretrained(backbone, tmp_path / "backbone.safetensors")
    arch = dict(embed_dims=[32, 48, 64, 96], num_heads=2)
    with pytest.raises(CheckpointError, match=r"the weights are deployed, the model is as trained"):
        load_pretrained(MetaSpikeFormer(arch), tmp_path / "backbone.safetensors", strict=False)


def test_part_of_a_model_in_the_other_form_is_named(plain, files):
    model = copy.deepcopy(plain[0])
    switch_to_deploy(model.backbone)
    with pytest.raises(FormError, match=r"^neck\.\S+: the weights are deployed, the model is as"):
        model.load_state_dict(files_content := read_checkpoint(files["cheapest"]).content)
    assert any(name.endswith(MARK) for name in files_content)


def test_trained_weights_have_no_mark(plain):
    model = plain[0]
    before = list(model.state_dict())
    assert not any(MARK in name for name in before)
    as_form(model, "cheapest")
    assert list(model.state_dict()) == before


@pytest.mark.parametrize("tool", ["test.py", "train.py", "image_demo.py", "converter"])
def test_tools_refuse_a_deployed_models_weights(trained_segmentor, files, tmp_path, tool):
    trained, file = trained_segmentor, files["cheapest"]
    options = ["--work-dir", tmp_path, "--cfg-options", *trained.options]
    if tool == "test.py":
        out = run("test.py", trained.config, file, *options, ok=False)
    elif tool == "train.py":
        more = [f"load_from={file}", "train_cfg.max_iters=1"]
        out = run("train.py", trained.config, *options, *more, ok=False)
    elif tool == "image_demo.py":
        image = next((trained.root / "val").iterdir())
        args = (image, trained.config, file, "--out", tmp_path / "out.png")
        out = run("image_demo.py", *args, "--cfg-options", *trained.options, ok=False)
    else:
        converter = "model_converters/metaspikeformer2mmspike.py"
        out = run(converter, file, tmp_path / "out.pth", ok=False)
    assert "the weights are deployed" in out
    assert "or load the checkpoint that was trained" in out
    assert "Traceback" not in out
    assert not list(tmp_path.glob("out.*"))
