"""Meta-SpikeFormer against numbers computed with the published implementation."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch

from mmspike.backbones import MetaSpikeFormer, MetaSpikeFormerClassifier
from mmspike.checkpoints import load_pretrained
from mmspike.checkpoints.upstream import translate_key

TAPS = ("stem_s2", "stage1_s4", "stage2_s8", "stage3_s16", "stage4_s16")


@pytest.fixture(scope="module")
def published_file(golden, tmp_path_factory):
    """The reference as the checkpoint file that it would be published in."""
    params = {
        key.removeprefix("param/"): torch.tensor(value)
        for key, value in golden.items()
        if key.startswith("param/")
    }
    params = {k: v.float() if v.is_floating_point() else v for k, v in params.items()}
    file = tmp_path_factory.mktemp("golden") / "checkpoint.pth"
    torch.save({"model": params, "epoch": 1, "args": argparse.Namespace(lr=1e-3)}, file)
    return str(file)


def arguments(golden):
    meta = json.loads(str(golden["meta"]))
    return dict(arch=dict(embed_dims=meta["embed_dim"], num_heads=meta["num_heads"]))


def build(golden, file, time_steps):
    model = MetaSpikeFormer(
        **arguments(golden),
        time_steps=time_steps,
        out_indices=range(5),
        init_cfg=dict(type="Pretrained", checkpoint=file),
    )
    model.init_weights()
    return model


def read_input(golden, size):
    x = torch.tensor(golden[f"input/{size}"]).float()
    x = x.permute(0, 3, 1, 2) if x.shape[-1] == 3 else x
    return (x / 255 - 0.45) / 0.225


def relative_error(actual, expected):
    expected = torch.as_tensor(np.asarray(expected)).float()
    return ((actual.reshape(expected.shape) - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("size", ["64x96", "65x75"])
@pytest.mark.parametrize("time_steps", [1, 4])
def test_taps_equal_the_published_models(golden, published_file, size, time_steps):
    model = build(golden, published_file, time_steps).eval()
    with torch.no_grad():
        outs = model(read_input(golden, size))
    for tap, out in zip(TAPS, outs, strict=True):
        expected = torch.tensor(golden[f"out/{size}/T{time_steps}/{tap}"]).float()
        assert out.shape == expected.shape
        off = (out - expected).abs() > 1e-3  # a spike on a threshold flipped
        assert off.float().mean() <= 1e-4, tap
        torch.testing.assert_close(out[~off], expected[~off], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", ["64x96", "65x75"])
@pytest.mark.parametrize("time_steps", [1, 4])
def test_logits_equal_the_published_models(golden, published_file, size, time_steps):
    model = MetaSpikeFormerClassifier(
        num_classes=10, distilled=True, time_steps=time_steps, **arguments(golden)
    ).eval()
    load_pretrained(model, published_file)
    with torch.no_grad():
        logits = model(read_input(golden, size))
    expected = torch.tensor(golden[f"out/{size}/T{time_steps}/logits"]).float()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_training_step_equals_the_published_models(golden, published_file):
    model = build(golden, published_file, time_steps=2).train()
    x = read_input(golden, "64x96").requires_grad_()
    out = model(x)[-1]
    assert relative_error(out, golden["train/T2/stage4_s16"]) < 1e-5
    (out * torch.tensor(golden["train/T2/grad_output"])).sum().backward()
    assert relative_error(x.grad, golden["train/T2/grad_input"]) < 1e-4

    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    checked = 0
    for key, expected in golden.items():
        name = translate_key(key.split("/")[-1])
        if key.startswith("train/T2/grad/"):
            assert relative_error(parameters[name].grad, expected) < 1e-4, key
        elif key.startswith("train/T2/buffer/"):
            assert relative_error(buffers[name], expected) < 1e-5, key
        else:
            continue
        checked += 1
    assert checked == 9
