"""What the tools leave out: warnings that nobody can act on, and lines by the thousand."""

from __future__ import annotations

import pytest
import torch

from tests.tools.helpers import run

DETECTOR = "configs/mask_rcnn_metaspike_shapes.py"


@pytest.mark.parametrize("kind", ["detector", "segmentor"])
def test_the_tools_warn_of_nothing(kind, request, tmp_path):
    trained = request.getfixturevalue(f"trained_{kind}")
    config, checkpoint, image = trained.config, trained.checkpoint, trained.root / "val/000000.png"
    opts = ["--cfg-options", *trained.options]
    train = [f"train_cfg.{key}=1" for key in ("max_iters", "val_interval")]
    train += ["param_scheduler.0.end=1", "param_scheduler.1.begin=1", "param_scheduler.1.end=2"]
    train += ["train_dataloader.batch_size=2"]
    errors = tmp_path / "errors.txt"
    out = run("train.py", config, "--work-dir", tmp_path, *opts, *train, errors=errors)
    (log,) = tmp_path.glob("*/*.log")
    for text in (out, log.read_text()):
        assert text.count("initialised Spike") == 1
        assert len(text.splitlines()) < 800  # the config and the hooks
    if kind == "detector":
        args = [
            config,
            checkpoint,
            "--work-dir",
            tmp_path / "test",
            "--show-dir",
            tmp_path / "shown",
        ]
        out += run("test.py", *args, *opts, errors=errors)
        energy = ["--num-images", 1, "--device", "cpu", "--out", tmp_path / "energy"]
        tool = "analysis_tools/get_energy.py"
        out += run(tool, config, checkpoint, *energy, *opts, errors=errors)
    else:
        demo = ["--device", "cpu", "--out", tmp_path / "picture.png"]
        out += run("image_demo.py", image, config, checkpoint, *demo, *opts, errors=errors)
    assert errors.read_text() == ""
    assert [line for line in out.splitlines() if "WARNING" in line or "OneDL" in line] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, it is used")
@pytest.mark.parametrize(
    "option", [["--amp"], ["--cfg-options", "optim_wrapper.type=AmpOptimWrapper"]]
)
def test_mixed_precision_without_a_gpu_ends_in_a_line(option):
    out = run("train.py", DETECTOR, *option, ok=False)
    (line,) = out.splitlines()
    assert option[-1] in line
    assert "mixed precision on a GPU alone" in line
