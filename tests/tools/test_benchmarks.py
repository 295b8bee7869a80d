"""The benchmarks of speed and memory, on as little as they take."""

from __future__ import annotations

import json

import pytest

from mmspike.native import library
from tests.tools.helpers import run


def cells_of(text, start):
    """The cells of a table's lines that begin with this."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_benchmark_prints_and_writes_what_it_measures(tmp_path):
    args = ["--models", "backbone", "--sizes", "32x32", "--train-sizes", "32x32"]
    args += ["--time-steps", 1, "--batch-size", 1, "--rounds", 1, "--out", tmp_path / "b.json"]
    out = run("analysis_tools/benchmark.py", *args)
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["inference", "training step"]
    assert all(row[way] > 0 for row in rows for way in ("eager", "training"))
    assert rows[0]["deployed"] > 0 < rows[0]["share"]
    assert rows[1]["training_mib"] > 0
    inference, _ = cells_of(out, "backbone")
    assert float(inference[7]) == pytest.approx(rows[0]["eager"] / rows[0]["training"], abs=0.006)


@pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")
def test_benchmark_of_convolutions_has_a_line_per_layer_and_rate():
    args = ["--rates", 0.1, 0.5, "--batch-size", 1, "--rounds", 1]
    out = run("analysis_tools/benchmark_conv.py", *args)
    conv = cells_of(out, "3x3, 32 to 128")
    assert [line[3] for line in conv] == ["bits", "table"]
    assert all(float(cell) > 0 for line in conv for cell in line[4:])
    assert [line[-1] for line in cells_of(out, "1x1, 256 to 1024")] == ["", ""]
    assert len(cells_of(out, "attention")) == 2


def test_benchmark_of_convolutions_refuses_a_rate_of_none():
    out = run("analysis_tools/benchmark_conv.py", "--rates", 0, ok=False)
    assert "--rates must be above 0" in out


def test_benchmark_of_neurons_compares_with_the_reference():
    args = ["--neurons", 256, "--time-steps", 2, "--dtypes", "float32", "--rounds", 1]
    out = run("analysis_tools/benchmark_neurons.py", *args)
    backends = {line[2]: line for line in cells_of(out, "float32")}
    assert float(backends["torch"][4]) == 1
    assert {"copy", "eager"} < set(backends)
    norms = [*cells_of(out, "norm |"), *cells_of(out, "norm and neuron")]
    assert len(norms) == 2 * library.is_available()
    assert all(float(cell) > 0 for line in norms for cell in line[2:])
