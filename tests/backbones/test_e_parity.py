"""E-SpikeFormer against numbers computed with the published implementation."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch

from mmspike import fused
from mmspike.backbones import ESpikeFormer, ESpikeFormerClassifier, MetaSpikeFormer
from mmspike.checkpoints import CheckpointError, load_pretrained
from mmspike.checkpoints.upstream import E_SPIKEFORMER, to_upstream_state_dict, translate_key
from tests.backbones.test_parity import TAPS, read_input, relative_error
from tests.conftest import ROOT

DATA = ROOT / "tests/data"
SIZES = json.loads((DATA / "espikeformer_checkpoint_keys.json").read_text())
PARAMETERS = {"5M": 4.913, "10M": 9.782, "19M": 18.627}  # millions, without the classifier


@pytest.fixture(scope="module")
def e_golden():
    with np.load(DATA / "espikeformer_tiny.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def params(e_golden):
    tensors = {
        key.removeprefix("param/"): torch.tensor(value)
        for key, value in e_golden.items()
        if key.startswith("param/")
    }
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


@pytest.fixture(scope="module")
def published_file(params, tmp_path_factory):
    """The reference as the checkpoint file that it would be published in."""
    file = tmp_path_factory.mktemp("e_golden") / "checkpoint.pth"
    content = {"model": params, "optimizer": {}, "epoch": 1, "scaler": {}}
    torch.save({**content, "args": argparse.Namespace(lr=1e-3)}, file)
    return str(file)


def arch_of(e_golden):
    meta = json.loads(str(e_golden["meta"]))
    return dict(embed_dims=meta["embed_dim"], num_heads=meta["num_heads"])


def build(e_golden, file, **options):
    model = ESpikeFormer(
        arch_of(e_golden),
        out_indices=range(5),
        init_cfg=dict(type="Pretrained", checkpoint=file),
        **options,
    )
    model.init_weights()
    return model


@pytest.mark.parametrize("size", ["64x96", "65x75"])
@pytest.mark.parametrize("plain", [True, False])
def test_outputs_equal_the_published_models(e_golden, published_file, size, plain):
    model = build(e_golden, published_file).eval()
    with torch.no_grad(), fused.switch.enabled(not plain):
        outs = model(read_input(e_golden, size))
    for tap, out in zip(TAPS, outs, strict=True):
        expected = torch.tensor(e_golden[f"out/{size}/{tap}"]).float()
        torch.testing.assert_close(out[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", ["64x96", "65x75"])
def test_logits_equal_the_published_models(e_golden, published_file, size):
    model = ESpikeFormerClassifier(num_classes=10, arch=arch_of(e_golden)).eval()
    load_pretrained(model, published_file)
    with torch.no_grad():
        logits = model(read_input(e_golden, size))
    expected = torch.tensor(e_golden[f"out/{size}/logits"]).float()
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_files_of_the_other_family_are_refused(e_golden, published_file, golden, tmp_path):
    other = {k.removeprefix("param/"): torch.tensor(v) for k, v in golden.items() if "param/" in k}
    torch.save({"model": other}, tmp_path / "v2.pth")
    arch = arch_of(e_golden)
    message = "this is a file of a Meta-SpikeFormer; the model is an E-SpikeFormer"
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(ESpikeFormer(arch), tmp_path / "v2.pth")
    message = "this is a file of an E-SpikeFormer; the model is a Meta-SpikeFormer"
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(MetaSpikeFormer(arch), published_file)
    state = {k: torch.zeros(shape) for k, shape in SIZES["5M"].items()}
    torch.save({"model": state}, tmp_path / "5M.pth")
    with pytest.raises(CheckpointError, match="these widths are the 5M model's: set arch='5M'"):
        load_pretrained(ESpikeFormer(arch), tmp_path / "5M.pth")


@pytest.mark.parametrize("plain", [True, False])
def test_training_step_equals_the_published_models(e_golden, published_file, plain):
    model = build(e_golden, published_file).train()
    x = read_input(e_golden, "64x96").requires_grad_()
    with fused.switch.enabled(not plain):
        out = model(x)[-1]
        (out[0] * torch.tensor(e_golden["train/grad_output"])).sum().backward()
    assert relative_error(out, e_golden["train/stage4_s16"]) < 1e-5
    assert relative_error(x.grad, e_golden["train/grad_input"]) < 1e-4
    parameters = dict(model.named_parameters())
    grads = [key for key in e_golden if key.startswith("train/grad/")]
    for key in grads:
        name = translate_key(key.split("/")[-1], E_SPIKEFORMER)
        assert relative_error(parameters[name].grad, e_golden[key]) < 1e-4, key
    assert len(grads) == 3


@pytest.mark.parametrize("size", SIZES)
def test_has_the_tensors_of_the_published_checkpoints(size):
    with torch.device("meta"):
        model = ESpikeFormer(size)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(
        PARAMETERS[size], abs=1e-3
    )
    ours = {k: list(v.shape) for k, v in to_upstream_state_dict(model.state_dict()).items()}
    theirs = {k: v for k, v in SIZES[size].items() if not k.startswith("head.")}
    assert ours == theirs


def test_shows_the_image_at_every_step_or_one_each(e_golden, published_file):
    x = read_input(e_golden, "64x96")
    model = build(e_golden, published_file, time_steps=3).eval()
    with torch.no_grad():
        repeated = model(x)
        frames = model(x.expand(3, *x.shape))
        other = model(torch.stack([x, x.flip(-1), x]))
    for a, b, c in zip(repeated, frames, other, strict=True):
        torch.testing.assert_close(a, b)
        assert torch.equal(a[0], c[0])
        assert not torch.equal(a[1], c[1])
    with pytest.raises(ValueError, match=r"takes \[B, C, H, W\], or \[3, B, C, H, W\]"):
        model(x.expand(2, *x.shape))
