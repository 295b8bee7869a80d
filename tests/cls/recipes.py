"""The recipes for ImageNet, and what tests build from them."""

from __future__ import annotations

from mmengine.config import Config

from mmspike.engine.configs import use_scope
from tests.conftest import ROOT

FOLDER = ROOT / "configs/classification"
FROM_SCRATCH = "metaspikeformer-15m_t1_8xb128-200e_in1k"
DISTILLED = "metaspikeformer-15m-distilled_t4_8xb24-20e_in1k"
DISTILLED_LONGER = "metaspikeformer-15m-distilled_t4_8xb24-50e_in1k"
INTEGERS = "espikeformer-10m_t1-d4_8xb256-200e_in1k"


def recipe(name):
    """A config for ImageNet; names in it are those of mmpretrain."""
    cfg = Config.fromfile(FOLDER / f"{name}.py")
    use_scope(cfg)
    return cfg


def small(cfg, classes=7):
    """The model of a config for few classes, with little width, from nothing."""
    model = cfg.model
    model.init_cfg = None
    model.backbone.arch = dict(embed_dims=[8, 8, 16, 16], num_heads=2)
    model.head.update(in_channels=16, num_classes=classes)
    return model
