"""Names resolve from any scope, and rooms load only when they are asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS

from tests.conftest import ROOT
from tests.tools.helpers import run


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def run_beside_hosts(code: str, folder: Path) -> str:
    """As ``run_python``, where the hosts were imported before, which takes most of the time."""
    script, errors = folder / "script.py", folder / "errors.txt"
    script.write_text(textwrap.dedent(code))
    errors.touch()
    out = run(script, errors=errors)
    assert errors.read_text() == ""
    return out


def test_backbone_and_neck_work_without_hosts_compiled_ops_and_gpu_packages():
    run_python(
        """
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                absent = ("mmdet", "mmseg", "triton", "cupy")
                if name.split(".")[0] in absent or name == "mmcv._ext":
                    raise ImportError(f"{name} is made absent")

        sys.meta_path.insert(0, Absent())
        import mmspike
        assert "torch" not in sys.modules
        import torch
        from mmengine.registry import MODELS

        arch = dict(embed_dims=[8, 8, 8, 8], num_heads=2)
        backbone = MODELS.build(dict(type="mmspike.MetaSpikeFormer", arch=arch))
        neck = MODELS.build(
            dict(type="mmspike.SpikeFPN", in_channels=[8] * 4, out_channels=8, num_outs=5)
        )
        assert len(neck(backbone(torch.rand(2, 3, 32, 32)))) == 5
        assert not any(m.split(".")[0] in ("mmdet", "mmseg") for m in sys.modules)
        """
    )


@pytest.mark.parametrize("scope", ["mmengine", "mmdet", "mmseg"])
def test_names_resolve_from_any_scope_without_custom_imports(scope, tmp_path):
    run_beside_hosts(
        f"""
        from importlib import import_module
        from mmengine.registry import init_default_scope

        init_default_scope("{scope}")
        models = import_module("{scope}.registry").MODELS
        neuron = models.build(dict(type="mmspike.LIF"))
        assert models.get("mmspike.MetaSpikeFormer").__name__ == "MetaSpikeFormer"
        import sys
        assert "mmspike.det" not in sys.modules
        assert models.get("mmspike.det.SpikeRPNHead").__name__ == "SpikeRPNHead"
        assert "mmspike.det" in sys.modules
        """,
        tmp_path,
    )


def test_unknown_names_are_an_error():
    import mmspike.registry  # noqa: F401

    with pytest.raises(KeyError, match=r"mmspike\.det\.SpikeNothing"):
        ROOT_MODELS.build(dict(type="mmspike.det.SpikeNothing"))


def test_configs_elsewhere_can_build_on_ours(tmp_path):
    import mmspike.registry  # noqa: F401

    config = tmp_path / "mine.py"
    for base in ("_base_/models/mask_rcnn_metaspike.py", "_base_/../mask_rcnn_metaspike_coco.py"):
        config.write_text(f'_base_ = "mmspike::{base}"\n')
        assert Config.fromfile(config).model.neck.type == "mmspike.SpikeFPN"


def test_docs_hold_no_placeholders():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert "_RESULT" not in page.read_text(), page


BUILDING = """
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS
import mmspike
for registry, kind in [
    (MODELS, "det.SpikeRPNHead"),
    (MODELS, "seg.SpikeFPNHead"),
    (TASK_UTILS, "det.WholeMaxIoUAssigner"),
    (TRANSFORMS, "seg.Stretch"),
]:
    print(registry.get(f"mmspike.{kind}").__module__)
try:
    MODELS.build(dict(type="mmspike.det.Nothing"))
except KeyError as error:
    print("KeyError", "mmspike.det.Nothing" in str(error))
"""


def test_no_file_of_the_users_runs_for_a_room(tmp_path):
    """A scope is taken for a package, which mmengine imports, from the working directory too."""
    for name in ("det", "seg"):
        (tmp_path / f"{name}.py").write_text("print('a file of the user ran')")
    done = subprocess.run(
        [sys.executable, "-c", BUILDING],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line for line in done.stdout.splitlines() if "OneDL" not in line] == [
        "mmspike.det.rpn_head",
        "mmspike.seg.fpn_head",
        "mmspike.det.assigners",
        "mmspike.seg.transforms",
        "KeyError True",
    ]
