"""Models that tools build without a checkpoint."""

from __future__ import annotations

import pytest

from mmspike.engine.inputs import build_model
from tests.seg.helpers import small_config

ABSENT = dict(type="Pretrained", checkpoint="absent.pth")
KAIMING = dict(type="Kaiming", layer="Conv2d")


@pytest.mark.parametrize("init_cfg", [ABSENT, [KAIMING, {**ABSENT, "type": "mmengine.Pretrained"}]])
def test_a_model_without_a_checkpoint_reads_no_file(init_cfg):
    cfg = small_config(1)
    cfg.model.backbone.init_cfg = init_cfg
    build_model(cfg, None, "cpu")
    assert cfg.model.backbone.init_cfg == ([KAIMING] if isinstance(init_cfg, list) else None)
