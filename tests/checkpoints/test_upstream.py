from __future__ import annotations

import pytest
import torch

from mmspike.backbones import MetaSpikeFormer
from mmspike.checkpoints.upstream import translate_key, translate_state_dict


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("downsample1_1.encode_conv.bias", "stages.0.downsample.layer.bias"),
        ("ConvBlock2_2.0.Conv.dwconv.weight", "stages.2.blocks.1.mixer.1.layer.0.weight"),
        ("ConvBlock1_1.0.bn2.running_var", "stages.0.blocks.0.mlp.1.norm.running_var"),
        (
            "block4.1.attn.proj_conv.0.body.1.bn.num_batches_tracked",
            "stages.4.blocks.1.mixer.proj_conv.norm1.num_batches_tracked",
        ),
        ("block3.5.mlp.fc2_conv.weight", "stages.3.blocks.5.mlp.1.layer.weight"),
        ("head_kd.weight", None),
        ("block3.0.attn.q_conv.0.body.9.weight", None),
    ],
)
def test_translates_names(theirs, ours):
    assert translate_key(theirs) == ours


def test_every_published_tensor_finds_a_place(golden):
    keys = [k.removeprefix("param/") for k in golden if k.startswith("param/")]
    translated = [translate_key(k) for k in keys]
    outside = [k for k, t in zip(keys, translated, strict=True) if t is None]
    assert outside == ["head.weight", "head.bias", "head_kd.weight", "head_kd.bias"]
    with torch.device("meta"):
        model = MetaSpikeFormer("15M")
    assert sorted(t for t in translated if t) == sorted(model.state_dict())


def test_one_dimensional_weights_gain_an_axis():
    out = translate_state_dict({"block3.0.mlp.fc1_conv.weight": torch.rand(8, 2, 1)})
    assert out["stages.3.blocks.0.mlp.0.layer.weight"].shape == (8, 2, 1, 1)
