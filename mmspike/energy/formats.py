"""A report for papers, notebooks and pandas."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mmspike.energy.names import readable_part

if TYPE_CHECKING:
    import pandas as pd

    from mmspike.energy.report import EnergyReport

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{c: "\\" + c for c in "&%$#_{}"},
}
_HEADINGS = ("part", "GMAC", "GSynOp", "energy, mJ", "as an ANN, mJ", "ratio")


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_LATEX.get(c, c) for c in text)


def latex_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], comment: str = "", texts: int = 1
) -> str:
    """A ``tabular`` with the rules of the package booktabs.

    Args:
        headings: Of the columns, as plain text.
        rows: Cells, as plain text.
        comment: What stands above, as a comment.
        texts: How many columns, from the first, are text; the others are numbers, to the right.
    """
    columns = "l" * texts + "r" * (len(headings) - texts)
    lines = [f"% {line}" for line in comment.splitlines()]
    lines += [f"\\begin{{tabular}}{{{columns}}}  % needs \\usepackage{{booktabs}}", r"\toprule"]
    body = [" & ".join(map(escape_latex, row)) + r" \\" for row in [headings, *rows]]
    return "\n".join(
        [*lines, body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}", ""]
    )


def report_to_latex(report: EnergyReport) -> str:
    """The parts of a model and their sum, as a table; see :meth:`EnergyReport.to_latex`."""
    rows = _sums(report)
    return latex_table(_HEADINGS, rows, "\n".join(_words(report)))


def report_to_html(report: EnergyReport) -> str:
    """The same for notebooks."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in _HEADINGS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _sums(report)
    )
    words = "<br>".join(html.escape(line) for line in _words(report))
    return f"<p>{words}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def report_to_dataframe(report: EnergyReport) -> pd.DataFrame:
    """A line per layer; see :meth:`EnergyReport.to_dataframe`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "EnergyReport.to_dataframe needs pandas, which is not installed: pip install pandas, "
            "or take EnergyReport.save, which writes the same as CSV"
        ) from error
    return pd.DataFrame([report.row_dict(row) for row in report.layers])


def number_of(value: float, decimals: int) -> str:
    """A number with so many decimals; with three digits where these would show less than two.

    Examples:
        >>> [number_of(value, 4) for value in (0.75, 0.000123456, 5.49e-8, 0.0)]
        ['0.7500', '0.000123', '5.49e-08', '0']
    """
    if value == 0:
        return "0"
    return f"{value:.3g}" if abs(value) < 10 ** (1 - decimals) else f"{value:.{decimals}f}"


def steps_of(report: EnergyReport) -> str:
    """T, and D where there is one, so that neither is taken for the other."""
    if report.frames > 1:
        return (
            f"T x D = {report.time_steps // report.frames} x {report.frames} binary frames, each "
            "counted as a step (rates are spikes per neuron and frame)"
        )
    text = f"T = {report.time_steps}"
    if report.levels > 1:
        text += (
            f", integers of up to D = {report.levels} (rates are spikes per neuron and step, up to "
            f"{100 * report.levels} %; a D-th of that per binary frame)"
        )
    return text


def _words(report: EnergyReport) -> list[str]:
    c = report.conventions
    many = "s" * (report.num_images > 1)
    return [
        f"{report.model}, {steps_of(report)}, mean firing rate "
        f"{100 * report.firing_rate:.1f} %; mean of {report.num_images} image{many}: "
        f"{report.data or 'not described'}",
        f"{c.mac_pj} pJ per MAC, {c.ac_pj} pJ per addition ({c.source}); image layer charged "
        f"{c.image_layer.replace('_', ' ')}; borders: {c.borders}",
    ]


def _sums(report: EnergyReport) -> list[list[str]]:
    """Cells of the parts, and of the whole last."""
    parts = {readable_part(name): sums for name, sums in report.parts.items()}
    return [_cells(name, sums) for name, sums in {**parts, "Total": report.total}.items()]


def _cells(name: str, sums: dict[str, Any]) -> list[str]:
    ratio = sums["ann_ratio"]
    return [
        name,
        number_of(sums["macs"] / 1e9, 3),
        number_of(sums["synops"] / 1e9, 3),
        number_of(sums["energy_mj"], 3),
        number_of(sums["ann_energy_mj"], 3),
        "" if ratio is None else f"{ratio:.1f}",
    ]
