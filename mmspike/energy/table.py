"""A report as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmspike.energy.formats import number_of, steps_of
from mmspike.energy.report import EnergyReport


def format_report(report: EnergyReport, layers: bool = True) -> str:
    """Write a report as text.

    Args:
        report: What to write.
        layers: Whether the layers get a line each, or the parts alone.
    """
    c = report.conventions
    lines = [
        f"{report.model}, {steps_of(report)}; images: {report.num_images}, "
        f"{report.data or 'not described'}; numbers are means per image",
        f"{c.mac_pj} pJ per MAC, {c.ac_pj} pJ per addition ({c.source})",
        f"image layer charged {c.image_layer.replace('_', ' ')}; borders: {c.borders}; "
        "RepConv as one 3x3 convolution; norms, pooling, interpolation and neurons not counted",
    ]
    if layers:
        rows = [report.row_dict(row) for row in report.layers]
        lines += ["", *_table(_LAYER_HEADINGS, [_layer_cells(row) for row in rows], texts=4)]
    real = [row for row in report.layers if row.reads != "spikes"]
    if real:
        lines += ["", "Read real values, charged as MACs:"]
        lines += [f"  {row.name} ({row.kind}, {row.reads})" for row in real]
    if report.uncounted:
        lines += ["", "WARNING: these have weights and ran, but no rule counts them:"]
        lines += [f"  {name}" for name in report.uncounted]
    sums = {**report.parts, "total": report.total}
    lines += ["", *_table(_SUM_HEADINGS, [_sum_cells(name, s) for name, s in sums.items()])]
    lines += ["", f"mean firing rate of {len(report.neurons)} layers of neurons: "]
    lines[-1] += f"{100 * report.firing_rate:.2f} %"
    if any(row.levels > 1 for row in report.neurons):
        lines[-1] += ", the mean integer of a step: up to 100 % for each of its D spikes"
    return "\n".join(lines)


_LAYER_HEADINGS = (
    "layer",
    "kind",
    "reads",
    "output",
    "MMAC",
    "rate per step, %",
    "MSynOp",
    "uJ",
)
_SUM_HEADINGS = ("part", "GMAC", "run as MAC, GMAC", "GSynOp", "mJ", "as an ANN, mJ", "ratio")


def _layer_cells(row: dict[str, Any]) -> list[str]:
    rates = row["rate_per_step"] or []
    return [
        row["name"],
        row["kind"],
        row["reads"],
        "x".join(map(str, row["output_shape"])),
        number_of(row["macs"] / 1e6, 2),
        " ".join(f"{100 * r:.2f}" for r in rates),
        "" if row["synops"] is None else number_of(row["synops"] / 1e6, 3),
        number_of(1e3 * row["energy_mj"], 3),
    ]


def _sum_cells(name: str, sums: dict[str, Any]) -> list[str]:
    return [
        name,
        number_of(sums["macs"] / 1e9, 4),
        number_of(sums["real_macs"] / 1e9, 4),
        number_of(sums["synops"] / 1e9, 4),
        number_of(sums["energy_mj"], 4),
        number_of(sums["ann_energy_mj"], 4),
        "" if sums["ann_ratio"] is None else f"{sums['ann_ratio']:.2f}",
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> list[str]:
    """Markdown that is aligned for a terminal too; the first ``texts`` columns are no numbers."""
    cells = [list(headings), *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if i < texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * w if i < texts else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [line(headings), "| " + " | ".join(rule) + " |", *map(line, rows)]
