"""What runs fused in the shipped configs, as the tool and the log tell it."""

from __future__ import annotations

import re

import pytest

from mmspike.native import library
from tests.tools.helpers import run

pytestmark = pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")

DETECTOR = "configs/mask_rcnn_metaspike_shapes.py"
SEGMENTOR = "configs/semantic_fpn_metaspike_shapes.py"
LINEAR = "the input is no map [T, B, C, H, W]"
UPSAMPLING = "the kernels do not know ConvTranspose2d"
STEM = "there is no neuron before it"


@pytest.mark.parametrize("form", [[], ["--train"], ["--deploy"]], ids=str)
@pytest.mark.parametrize(
    ("config", "plain"),
    [(DETECTOR, {STEM: 1, LINEAR: 2, UPSAMPLING: 1}), (SEGMENTOR, {STEM: 1})],
    ids=["detector", "segmentor"],
)
def test_all_but_a_few_layers_of_the_demos_run_fused(config, plain, form):
    options = ["--shape", 64, 64, "--device", "cpu", *form]
    if config == DETECTOR:
        options += ["--cfg-options", "model.test_cfg.rcnn.score_thr=0.0"]
    out = run("analysis_tools/explain_fused.py", config, *options)
    line = out.strip().splitlines()[-1]
    fused, total = (int(word) for word in re.findall(r"\d+", line)[:2])
    assert total >= 60
    assert total - fused == sum(plain.values()), line
    for reason, count in plain.items():
        assert f"{count} plain: {reason}" in line
    assert "backbone.stages.0.downsample" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        "mask_rcnn_metaspike_coco.py",
        "semantic_fpn_metaspike_ade20k.py",
        "upernet_metaspike_ade20k.py",
    ],
)
def test_backbones_of_the_large_configs_run_fused(config):
    out = run(
        "analysis_tools/explain_fused.py", f"configs/{config}", "--shape", 64, 64, "--device", "cpu"
    )
    plain = [row for row in out.splitlines() if "backbone." in row and not row.endswith("fused")]
    assert len(plain) == 1
    assert STEM in plain[0]


def test_a_reason_is_told_for_another_neuron():
    options = ["--cfg-options", "model.backbone.neuron_cfg.type=mmspike.LIF"]
    options += ["model.backbone.neuron_cfg.backend=eager", "--shape", 64, 64, "--device", "cpu"]
    out = run("analysis_tools/explain_fused.py", SEGMENTOR, *options)
    assert "plain: the neuron asks for backend 'eager'" in out
