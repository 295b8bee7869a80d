"""Configs that were written for the published code."""

from __future__ import annotations

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope

from mmspike import published

PUBLISHED = {
    "type": "Spiking_vit_MetaFormer",
    "img_size_h": 512,
    "img_size_w": 512,
    "patch_size": 16,
    "embed_dim": [64, 128, 256, 360],
    "num_heads": 8,
    "mlp_ratios": 4,
    "in_channels": 3,
    "num_classes": 150,
    "qkv_bias": False,
    "depths": 8,
    "sr_ratios": 1,
    "T": 4,
    "decode_mode": "snn",
}


@pytest.mark.parametrize(
    ("scope", "indices", "decode"),
    [("mmdet", (1, 2, 3, 4), None), ("mmseg", (0, 1, 2, 4), "mean")],
)
def test_builds_the_backbone_of_the_host(scope, indices, decode):
    with DefaultScope.overwrite_default_scope(scope), torch.device("meta"):
        built = MODELS.build({**PUBLISHED, "norm_eval": True})
        modern = MODELS.build(
            {
                "type": "mmspike.MetaSpikeFormer",
                "arch": "15M",
                "time_steps": 4,
                "out_indices": indices,
                "decode": decode,
            }
        )
    assert type(built) is type(modern)
    assert (built.time_steps, built.out_indices, built.decode) == (4, indices, decode)
    assert built.norm_eval
    shapes = {name: x.shape for name, x in modern.state_dict().items()}
    assert {name: x.shape for name, x in built.state_dict().items()} == shapes


def test_logs_the_modern_form_once(monkeypatch, capsys):
    monkeypatch.setattr(published, "_logged", set())
    MMLogger.get_instance("published")
    for _ in range(2):
        MODELS.build({**PUBLISHED, "embed_dim": [16, 16, 24, 32], "num_heads": 4, "T": 1})
    out = capsys.readouterr().out
    arch = "arch={'embed_dims': [16, 16, 24, 32], 'num_heads': 4}"
    assert out.count(f"backbone=dict(type='mmspike.MetaSpikeFormer', {arch}, time_steps=1") == 1
    assert out.count("Spiking_vit_MetaFormer") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("depths", 12), ("mlp_ratios", 2), ("decode_mode", "QTrick"), ("drop_path_rate", 0.1)],
)
def test_refuses_what_no_published_model_has(name, value):
    with pytest.raises(
        ValueError, match=rf"Spiking_vit_MetaFormer: {name} must be .* got {value!r}"
    ):
        MODELS.build({**PUBLISHED, name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Spiking_vit_MetaFormer needs embed_dim, the widths of the four stages"),
        ({"embed_dim": 64}, "Spiking_vit_MetaFormer: embed_dim must be the widths .* got 64"),
    ],
    ids=["nothing", "a number"],
)
def test_names_itself_and_the_argument_that_it_needs(given, message):
    with pytest.raises(TypeError, match=message) as error:
        MODELS.build({"type": "Spiking_vit_MetaFormer", **given})
    assert "modern_form" not in str(error.value)
