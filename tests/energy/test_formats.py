"""A report as LaTeX, HTML and pandas, and its figures."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mmspike.backbones import MetaSpikeFormer
from mmspike.energy import measure
from mmspike.energy.formats import escape_latex
from mmspike.energy.names import place_of
from mmspike.energy.plots import draw_report
from tests.overlaps import overlapping_texts


@pytest.fixture(scope="module", params=[1, 3], ids=["T=1", "T=3"])
def report(request):
    torch.manual_seed(0)
    arch = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
    model = MetaSpikeFormer(arch=arch, time_steps=request.param, attn_init_size=(64, 64)).train()
    images = torch.rand(2, 3, 64, 64)
    for _ in range(3):
        model(images)  # statistics of norms
    return measure(model, [images], data="50 % of_all {images} & more")


def cells_of(latex):
    """Cells of the rows of a tabular, of which each must have as many as there are columns."""
    begin, *rows, end = [x for x in latex.splitlines() if not x.startswith("%")]
    assert begin.startswith(r"\begin{tabular}")
    assert end == r"\end{tabular}"
    columns = begin.split("{")[2].split("}")[0]
    assert [r for r in rows if r.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    cells = [r.removesuffix(r" \\").split(" & ") for r in rows if r.endswith(r" \\")]
    assert {len(row) for row in cells} == {len(columns)}
    assert len(cells) + 3 == len(rows)
    return cells


def test_latex_has_a_row_per_part_and_the_total(report):
    latex = report.to_latex()
    cells = cells_of(latex)
    assert [row[0] for row in cells[1:]] == [*(p.capitalize() for p in report.parts), "Total"]
    assert float(cells[-1][3]) == pytest.approx(report.total["energy_mj"], rel=0.05)
    assert float(cells[-1][4]) == pytest.approx(report.total["ann_energy_mj"], rel=0.05)
    assert latex.startswith("% MetaSpikeFormer, T = ")


def test_special_characters_are_escaped():
    assert escape_latex("50 % of_a & {b}\\ ±") == r"50 \% of\_a \& \{b\}\textbackslash{} $\pm$"


def test_html_names_data_and_numbers(report):
    html = report._repr_html_()
    assert "50 % of_all {images} &amp; more" in html
    assert html.count("<tr>") == 2 + len(report.parts)
    total = re.findall(r"<td>(.*?)</td>", html.split("<tr>")[-1])
    assert float(total[3]) == pytest.approx(report.total["energy_mj"], rel=0.05)


def test_dataframe_has_a_line_per_layer(report, monkeypatch):
    made = []
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=made.append))
    report.to_dataframe()
    ((*rows,),) = made
    assert [row["name"] for row in rows] == [row.name for row in report.layers]
    assert sum(row["energy_mj"] for row in rows) == pytest.approx(report.total["energy_mj"])


def test_dataframe_without_pandas_names_it(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    with pytest.raises(ImportError, match="needs pandas, which is not installed"):
        report.to_dataframe()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("backbone.stages.0.downsample.layer", ("Stem", "downsampling")),
        (
            "backbone.stages.1.blocks.0.mixer.1.neuron",
            ("Stage 1", "block 1, separable convolution"),
        ),
        ("backbone.stages.3.blocks.2.mixer #2", ("Stage 3", "block 3, attention")),
        ("module.backbone.stages.4.blocks.1.mlp.0.layer", ("Stage 4", "block 2, MLP")),
        ("backbone.stages.0.blocks.0.mixer.2.neuron", ("Stem", "block 1, separable convolution")),
        ("backbone.stages.3.blocks.1.conv.2", ("Stage 3", "block 2, separable convolution")),
        ("neck.lateral_convs.0.layer", ("Neck", "lateral 1")),
        ("rpn_head.rpn_cls", ("RPN head", "objectness")),
        ("roi_head.mask_head.convs.1.layer", ("Mask head", "convolution 2")),
        ("decode_head.neuron", ("Decode head", "output")),
        ("own_part.some_layer", ("Own part", "some layer")),
    ],
)
def test_places_are_named_for_people(name, place):
    assert place_of(name) == place


def test_figures_are_written_twice_with_one_scale_and_readable(report, tmp_path, monkeypatch):
    figures, close = [], plt.close
    monkeypatch.setattr(plt, "close", figures.append)
    files = draw_report(report, tmp_path)
    names = ["energy_by_layer", "energy_by_part", "firing_rates"]
    assert [f.name for f in files] == [n + end for n in names for end in (".pdf", ".png")]
    for file in files:
        if file.suffix == ".png":
            assert cv2.imread(str(file)).std() > 1
        else:
            assert file.read_bytes().startswith(b"%PDF")
    (ax,) = figures[1].axes  # by part, both kinds of network
    widths = np.array([bar.get_width() for bar in ax.patches])
    assert widths.max() == pytest.approx(report.total["ann_energy_mj"])
    spent = widths.sum() - report.total["ann_energy_mj"]
    assert spent == pytest.approx(report.total["energy_mj"])
    for figure in figures:
        assert overlapping_texts(figure) == []
        close(figure)
