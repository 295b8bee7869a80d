"""What parts of one's own tell of themselves is compared with what a file says of them."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

import mmspike.registry  # noqa: F401
from mmspike.backbones import MetaSpikeFormer
from mmspike.checkpoints import CheckpointError, load_pretrained, load_whole
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
        assert model.beside_weights({"T": 3})["time_steps"] == 3
        assert model.beside_weights({"embed_dim": [1], "arch": size})["num_heads"] == 8
        assert model.beside_weights({"arch": size})["num_heads"] == 8
        assert "num_heads" not in model.beside_weights({"arch": object()})
        assert "attn_scale" not in model.beside_weights({"attn_scale": object()})


LIF, RELU = dict(type="mmspike.LIF"), dict(type="ReLU")
SAME = dict(v_threshold=0.5, tau=2.0)
NEURONS = "LIF(tau=2.0, v_threshold=1.0, v_reset=0.0, decay_input=True)"
ATTENTION = {  # neurons of all and after the attention then, now, and what is said of them
    "a type": (LIF, RELU, LIF, None, "attn_neuron_cfg = ReLU() then, LIF(tau=2.0, v_threshold"),
    "another's setting": (
        *(LIF, dict(INTEGERS, levels=2), LIF, INTEGERS),
        "attn_neuron_cfg = IntegerLIF(levels=2) then, IntegerLIF(levels=4) now",
    ),
    "a setting": (
        *(LIF, dict(tau=3.0, v_threshold=0.5), None, None),
        "attn_neuron_cfg = LIF(tau=3.0) then, LIF(tau=2.0) now",
    ),
    "the default, written out": (LIF, SAME, LIF, None, ""),
    "the default, left out": (None, None, LIF, SAME, ""),
    "without a threshold": (INTEGERS, None, INTEGERS, {}, ""),
    "nothing changed": (LIF, {}, LIF, None, "attn_neuron_cfg = LIF(v_threshold=1.0) then, LIF("),
    "what is not told": (LIF, dict(type=None), LIF, None, ""),
    "another neuron everywhere": (
        *(LIF, None, INTEGERS, None),
        f"{NEURONS} then, IntegerLIF(levels=4, beta=0.5, normalize=True) now",
    ),
    "another tau everywhere": (LIF, None, dict(LIF, tau=3.0), None, "LIF(tau=2.0) then, LIF(tau="),
    "somebody's of the same name": (
        *(dict(type="mine.LIF", tau=2.0), RELU, LIF, RELU),
        f"mine.LIF(tau=2.0) then, {NEURONS} now",
    ),
    "a type that is not told": (dict(levels=4), RELU, LIF, RELU, ""),
}


@pytest.mark.parametrize("case", ATTENTION)
def test_the_neuron_after_the_attention(case, tmp_path):
    then, change_then, now, change, expected = ATTENTION[case]
    arch = dict(embed_dims=[16, 16, 24, 32], num_heads=4, depths=[1, 1, 1, 1, 1])
    cfg = dict(type="mmspike.MetaSpikeFormer", arch=arch)
    model = MODELS.build(dict(cfg, neuron_cfg=now, attn_neuron_cfg=change))
    record = dict(neuron_cfg=then, backbone=dict(cfg, attn_neuron_cfg=change_then))
    said = warnings_of(tmp_path, record, model, OwnHead(INTEGERS))
    assert len(said) == (expected != "")
    assert all(line.startswith(f"backbone: {expected}") for line in said)
    assert all(line.count(" then, ") == 1 for line in said)


class Twice(MetaSpikeFormer):
    """Looks twice at every image unless told."""

    looks = 2

    def beside_weights(self, cfg=None):
        looks = self.looks if cfg is None else cfg.get("looks", 2)
        return {**super().beside_weights(cfg), "looks": looks}


def test_a_setting_of_ones_own_may_be_meant(tmp_path):
    arch = dict(embed_dims=[16, 16, 24, 32], num_heads=4, depths=[1, 1, 1, 1, 1])
    model, file = Twice(arch), tmp_path / "own.pth"
    cfg = dict(backbone=dict(type="Twice", arch=arch, looks=3))
    torch.save({"state_dict": model.state_dict(), "meta": {"cfg": f"model = {cfg!r}"}}, file)
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append((record.levelname, record.getMessage()))
    MMLogger.get_instance("own-settings").addHandler(handler)
    load_pretrained(model, file, allow_changed="looks")
    ((level, text),) = [(level, text) for level, text in said if "trained with" in text]
    assert level == "INFO"
    assert text.endswith("as allow_changed says: backbone: looks = 3 then, looks = 2 now")
    with pytest.raises(CheckpointError, match=r"must be some of neuron_cfg, .*, looks, got 'look'"):
        load_pretrained(model, file, allow_changed="look")
    with pytest.raises(CheckpointError, match="allow_changed must be some of"):
        load_pretrained(MetaSpikeFormer(arch), file, allow_changed="looks")
