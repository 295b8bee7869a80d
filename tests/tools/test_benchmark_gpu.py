"""The benchmark that needs a GPU: what it does without one, and all of its code at tiny sizes."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.tools.helpers import run, run_together
from tests.tools.test_benchmarks import cells_of

TOOL = "analysis_tools/benchmark_gpu.py"
HANGING = """
import pathlib, sys, time
rows = sys.argv[sys.argv.index("--rows") + 1]
pathlib.Path(rows).write_text('{"ms": 1}')
time.sleep(60)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_says_that_there_is_no_gpu():
    ((text, status),) = run_together(TOOL)
    assert status == 2
    assert "there is no GPU here" in text


@pytest.mark.slow
def test_every_section_measures_plain_and_ours(tmp_path):
    sections = ["backbone", "detector", "segmentor", "layers", "neurons"]
    out = run(TOOL, "--dry-run", "--only", *sections, "--out", tmp_path / "b.json")
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert not [row for row in rows if "error" in row]
    ended = [row for row in rows if "ended" in row]
    assert [(row["section"], row["ended"]) for row in ended] == [(s, "done") for s in sections]
    for section in sections:
        timed = [row for row in rows if row["section"] == section and "ms" in row]
        ways = {row["way"] for row in timed}
        assert {"eager", "ours"} <= ways, section
        assert all(row["ms"] > 0 for row in timed)
    profiles = [row for row in rows if "kernels" in row]
    assert len(profiles) == 8
    assert all(len(row["kernels"]) == 10 for row in profiles)
    losses = {row["way"]: row["loss"] for row in rows if "loss" in row and row["T"] == 1}
    assert set(losses) == {"eager", "ours", "ours, CUDA graphs"}
    (line,) = cells_of(out, "training step, backbone, ours, CUDA graphs | 1")
    eager, ours = (
        next(
            r["ms"] for r in rows if r.get("what") == line[0].rsplit(", ours")[0] and r["way"] == w
        )
        for w in ("eager", "ours, CUDA graphs")
    )
    assert float(line[4]) == pytest.approx(eager / ours, abs=0.006)


@pytest.fixture
def tool(monkeypatch):
    """The tool as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "tools/analysis_tools"))
    import benchmark_gpu

    return benchmark_gpu


def test_a_section_that_hangs_is_stopped(tool, tmp_path, monkeypatch, capfd):
    hanging = tmp_path / "hang.py"
    hanging.write_text(HANGING)
    monkeypatch.setattr(tool, "__file__", str(hanging))
    args = type("Args", (), {"dry_run": True})
    rows = tool.run_section("layers", args, tmp_path, 2.0)
    assert rows[0] == {"ms": 1}
    assert rows[1]["ended"] == "stopped after 2 s"


def test_the_table_goes_between_its_marks(tool, tmp_path, monkeypatch):
    docs = tmp_path / "docs.md"
    begin, end = tool.MARKS
    docs.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    monkeypatch.setattr(tool, "DOCS", docs)
    common = dict(what="step", T=1)
    rows = [
        dict(common, way="eager", ms=30.0, mib=200),
        dict(common, way="ours", ms=10.0, mib=50),
        dict(section="x", ended="done"),
    ]
    tool.write_docs("machine", rows)
    text = docs.read_text()
    assert text.startswith(f"before\n{begin}\nmachine:\n")
    assert text.endswith(f"{end}\nafter\n")
    assert "| step, ours | 1 | 30.00 | 10.00 | 3.00 | 200 | 50 | 25 % |" in text
    assert "old" not in text
    docs.write_text("no marks")
    with pytest.raises(SystemExit, match="needs one line each"):
        tool.write_docs("machine", rows)


def test_the_docs_have_the_marks(tool):
    text = Path(tool.DOCS).read_text()
    assert all(text.count(mark) == 1 for mark in tool.MARKS)


def test_the_host_waits_less_with_our_assigner():
    args = ["--size", 64, "--images", 2, "--dry-run"]
    waits = {}
    for extra in ((), ("--mmdet-assigner",)):
        out = run("analysis_tools/profile_host.py", *args, *extra)
        (line,) = cells_of(out, "RPN, targets")
        waits[extra] = int(line[2])
        assert int(cells_of(out, "backbone and neck")[0][1]) > 100
    assert 0 < waits[()] < waits[("--mmdet-assigner",)]


def test_computed_memory_is_what_a_gpu_took():
    """432 MiB were measured: docs/gpu.md."""
    out = run("analysis_tools/training_memory.py", "--models", "15M", "--time-steps", 1)
    (line,) = cells_of(out, "15M")
    assert line[:2] == ["15M", "1"]
    assert float(line[2]) == pytest.approx(432, rel=0.05)


@pytest.mark.skipif(find_spec("triton") is not None, reason="there is Triton")
def test_memory_of_the_kernels_needs_triton():
    out = run("analysis_tools/training_memory.py", "--kernels", ok=False)
    assert "training_memory: --kernels needs Triton" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "10M"], "--models 10M: there are 15M, 31M, 55M"),
        (["--time-steps", 0], "--time-steps takes numbers from 1"),
        (["--crop", -5, 512], "--crop takes numbers from 1"),
    ],
)
def test_memory_of_what_there_is(options, message):
    assert message in run("analysis_tools/training_memory.py", *options, ok=False)
