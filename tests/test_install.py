"""mmcv with and without operators: what ``make`` installs when, and what is said without them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from mmengine.config import Config

from mmspike import installed
from tests.conftest import ROOT
from tests.tools.helpers import run

PIP = """#!/bin/sh
echo "pip $*" >> calls
case "$1" in
  show) grep -q "^pip install .*operators/" calls ;;
  wheel) mkdir -p build/operators && touch build/operators/onedl_mmcv.whl ;;
esac
"""
PYTHON = '#!/bin/sh\necho "python $*" >> calls\n'


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile, and an environment that writes down what it is asked for."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    files = ("stack", "classification", "constraints")
    for name in ("setup.py", *(f"requirements/{file}.txt" for file in files)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name, text in (("pip", PIP), ("python", PYTHON)):
        program = tmp_path / ".venv/bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    (tmp_path / "calls").touch()
    return tmp_path


def make(folder, target):
    """Run ``make``; return what it prints, and what it called since the call before."""
    before = len((folder / "calls").read_text().splitlines())
    done = subprocess.run(
        ["make", target], cwd=folder, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout, (folder / "calls").read_text().splitlines()[before:]


def test_operators_are_compiled_when_they_are_first_needed(clone):
    out, calls = make(clone, "install")
    assert any(c.endswith("--no-deps mmcv-lite") for c in calls)
    assert not any("wheel onedl-mmcv" in c or "operators/" in c for c in calls)
    assert calls[-1] == "python tools/check_install.py"
    assert "12 minutes" not in out

    out, calls = make(clone, "install-full")
    assert out.count("12 minutes on two cores") == 1
    order = [c.split()[1] for c in calls if c.startswith("pip")]
    assert order == ["show", "install", "wheel", "uninstall", "install"]
    assert calls[-3] == "pip uninstall -q -y mmcv-lite"  # once the other is there, not before
    assert calls[-1] == "python tools/check_install.py --operators"

    for target in ("install", "install-full"):  # nothing is left to do
        assert [c for c in make(clone, target)[1] if c.startswith("pip")] == []


def test_an_update_leaves_compiled_operators_alone(clone):
    make(clone, "install-full")
    (clone / "requirements/stack.txt").write_text("# changed")
    for stamp in (".venv/.installed", ".venv/.installed-operators"):
        subprocess.run(["touch", "-d", "yesterday", clone / stamp], check=True)
    _, calls = make(clone, "install-full")
    assert any("-r requirements/stack.txt" in c for c in calls)
    assert not any("mmcv-lite" in c or c.startswith("pip wheel") for c in calls)


WITHOUT_OPERATORS = "import runpy, sys\nsys.modules['mmcv._ext'] = None\n"


@pytest.fixture
def without_operators(tmp_path):
    """Runs code in a process in which mmcv has no operators; returns what it prints."""

    def call(code, ok=False):
        script = tmp_path / "script.py"
        script.write_text(WITHOUT_OPERATORS + code)
        return run(script, ok=ok)

    return call


TOOL = "sys.argv = {argv!r}\nrunpy.run_path('tools/{tool}', run_name='__main__')\n"


@pytest.mark.parametrize(
    ("tool", "argv"),
    [
        ("train.py", ["train.py", "configs/mask_rcnn_metaspike_shapes.py"]),
        ("image_demo.py", ["image_demo.py", "README.md", "configs/mask_rcnn_metaspike_shapes.py"]),
    ],
)
def test_a_detectors_config_without_operators_ends_with_the_command(tool, argv, without_operators):
    argv = [*argv, "README.md"] if tool == "image_demo.py" else argv
    last = without_operators(TOOL.format(argv=argv, tool=tool)).splitlines()[-1]
    assert "mask_rcnn_metaspike_shapes.py, a detector's config, needs mmcv's compiled" in last
    assert "`make install-full`" in last


def test_detection_in_python_without_operators_names_the_command(without_operators):
    out = without_operators(
        "import mmspike.registry\n"
        "from mmengine.registry import MODELS\n"
        "MODELS.build(dict(type='mmspike.det.SpikeRPNHead'))\n"
    )
    assert "mmspike.det needs mmcv's compiled operators" in out.splitlines()[-1]


def test_segmentation_needs_no_operators(without_operators):
    argv = ["get_energy.py", "configs/semantic_fpn_metaspike_shapes.py", "--shape", "64", "64"]
    argv += ["--brief"]
    code = f"sys.path.insert(0, 'tools/analysis_tools')\n{TOOL}"
    out = without_operators(code.format(argv=argv, tool="analysis_tools/get_energy.py"), ok=True)
    assert "decode_head" in out


def test_check_install_tells_what_is_there(without_operators):
    out = run("check_install.py")
    assert "mmcv's ops on cpu: work" in out
    assert "classification: works" in out
    tool = {"tool": "check_install.py"}
    out = without_operators(TOOL.format(argv=["check_install.py"], **tool), ok=True)
    assert "mmcv's ops: none, segmentation works" in out
    out = without_operators(TOOL.format(argv=["check_install.py", "--operators"], **tool))
    assert "detection needs mmcv's compiled operators" in out.splitlines()[-1]


def test_no_mmcv_at_all_is_named(monkeypatch):
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    with pytest.raises(installed.MissingPackageError, match="mmcv, which is not installed: `pip"):
        installed.require_mmcv()


def test_the_demo_of_classification_uses_what_it_trains(clone):
    _, calls = make(clone, "demo-cls")
    trained, used = set(), []
    for call in calls:
        named = re.findall(r"\b(?:tools|configs)/\S+\.py\b", call)
        assert [name for name in named if not (ROOT / name).is_file()] == []
        if "tools/train.py" in call:
            cfg = Config.fromfile(ROOT / named[1])
            used += [cfg.model[k]["checkpoint"] for k in ("teacher", "init_cfg") if k in cfg.model]
            used += re.findall(r"work_dirs/\S+\.pth", call)
            assert set(used) <= trained
            work_dir = re.search(r"--work-dir (work_dirs/demo-cls/\S+)", call)[1]
            trained.add(f"{work_dir}/epoch_{cfg.train_cfg.get('max_epochs')}.pth")
        elif "tools/test.py" in call:
            assert re.search(r"work_dirs/\S+\.pth", call)[0] in trained
    assert len(used) == 3  # a teacher, and weights of T = 1 twice
    assert "pretrained=work_dirs/demo-cls/seg-pretrained" in calls[-1]
