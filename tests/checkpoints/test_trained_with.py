"""What parts of one's own tell of themselves is compared with what a file says of them."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

import mmspike.registry  # noqa: F401
from mmspike.checkpoints import load_whole
from mmspike.neurons import build_neuron
from tests.tools.test_trained_with import WARNING


class OwnBackbone(nn.Module):
    """Takes four steps unless told, and looks twice at every image unless told."""

    def __init__(self, time_steps=4, looks=2, tells=True):
        super().__init__()
        self.time_steps, self.looks = time_steps, looks
        self.neuron = build_neuron()
        if tells:
            self.beside_weights = self._settings

    def _settings(self, cfg=None):
        if cfg is None:
            return {"time_steps": self.time_steps, "looks": self.looks}
        return {"time_steps": cfg.get("time_steps", 4), "looks": cfg.get("looks", 2)}


class OwnHead(nn.Module):
    """Its neuron gives n, and not n / D."""

    def __init__(self, neuron_cfg, tells=True):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.neuron = build_neuron({**neuron_cfg, "normalize": False})
        if tells:
            self.neuron_of = lambda cfg: {**(cfg or {"type": "IntegerLIF"}), "normalize": False}


INTEGERS = dict(type="mmspike.IntegerLIF", levels=4)


def warnings_of(tmp_path, recorded, backbone, head):
    """What loading says of a model whose file has a config."""
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    MMLogger.get_instance("own-parts").addHandler(handler)
    model = nn.ModuleDict({"backbone": backbone, "head": head})
    content = {"state_dict": model.state_dict(), "meta": {"cfg": f"model = {recorded!r}"}}
    torch.save(content, tmp_path / "own.pth")
    load_whole(model, tmp_path / "own.pth")
    return [text.split(WARNING)[1] for text in said if WARNING in text]


def recorded(backbone=(), head=()):
    return dict(
        backbone=dict(type="OwnBackbone", **dict(backbone)),
        head=dict(type="OwnHead", neuron_cfg=INTEGERS, **dict(head)),
    )


@pytest.mark.parametrize("tells", [True, False])
def test_a_heads_own_setting_is_no_difference_where_it_tells_it(tells, tmp_path):
    said = warnings_of(tmp_path, recorded(), OwnBackbone(), OwnHead(INTEGERS, tells))
    told = ["head: IntegerLIF(normalize=True) then, IntegerLIF(normalize=False) now"]
    assert said == ([] if tells else told)
    cfg = recorded()
    cfg["head"]["neuron_cfg"] = {**INTEGERS, "levels": 2, "normalize": False}
    said = warnings_of(tmp_path, cfg, OwnBackbone(), OwnHead(INTEGERS, tells))
    assert said == ["head: IntegerLIF(levels=2) then, IntegerLIF(levels=4) now"]


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({}, {}, ""),
        ({}, {"time_steps": 1}, "backbone: T = 4 then, T = 1 now"),
        ({"time_steps": 1}, {"time_steps": 1}, ""),
        ({"looks": 3}, {}, "backbone: looks = 3 then, looks = 2 now"),
    ],
)
def test_a_backbones_own_settings(tells, then, now, expected, tmp_path):
    backbone = OwnBackbone(**now, tells=tells)
    said = "".join(warnings_of(tmp_path, recorded(then), backbone, OwnHead(INTEGERS)))
    assert said == (expected if tells or "looks" not in expected else "")


def test_a_backbone_without_config_values_is_that_of_its_defaults(tmp_path):
    arch = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
    for kind, size in (("MetaSpikeFormer", "15M"), ("ESpikeFormer", "10M")):
        model = MODELS.build(dict(type=f"mmspike.{kind}", arch=arch))
        assert model.beside_weights() == model.beside_weights({"type": kind, "arch": arch})
        assert model.beside_weights({"arch": size})["num_heads"] == 8
        assert "num_heads" not in model.beside_weights({"arch": object()})
        assert "attn_scale" not in model.beside_weights({"attn_scale": object()})
