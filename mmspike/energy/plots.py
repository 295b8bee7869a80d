"""Figures of a report, for print: each as PDF and as PNG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mmspike.energy.firing_rate import NeuronRow
from mmspike.energy.names import by_place, readable_part
from mmspike.energy.report import EnergyReport, LayerRow

STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
}
READS = {"spikes": "#2a6f97", "real values": "#e07a1f", "image": "#9c2c2c"}
ANN = "#8a8a8a"
_ROW = 0.15  # inches


def save_figure(fig: plt.Figure, path: str | Path) -> list[Path]:
    """Write a figure as PDF and as PNG, and close it.

    Args:
        fig: Figure.
        path: Where to, with or without an ending; its folder is made if it does not exist.

    Returns:
        Both files.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(".pdf"), path.with_suffix(".png")]
    for file in files:
        fig.savefig(file, dpi=200)
    plt.close(fig)
    return files


def draw_report(report: EnergyReport, folder: str | Path) -> list[Path]:
    """Draw energy by layer and by part, and firing rates by layer and time step.

    Energies of the spiking network and of the same network on real values share one scale.

    Args:
        report: What to draw.
        folder: Where to; made if it does not exist.

    Returns:
        The files, a ``.pdf`` and a ``.png`` of each: ``energy_by_layer``, ``energy_by_part`` and,
        if there are neurons, ``firing_rates``.
    """
    title = f"{report.model}, T = {report.time_steps}, mean of {report.num_images} image"
    title = "\n".join([f"{title}{'s' * (report.num_images > 1)}", *wrap(report.data, 70)])
    with mpl.rc_context(STYLE):
        figures = {"energy_by_layer": energy_by_layer(report), "energy_by_part": _by_part(report)}
        if report.neurons:
            figures["firing_rates"] = firing_rates(report.neurons)
        files = []
        for name, fig in figures.items():
            fig.suptitle(title, fontsize=8)
            files += save_figure(fig, Path(folder) / name)
    return files


def energy_by_layer(report: EnergyReport) -> plt.Figure:
    """A dot per layer, or block of layers, for either kind of network, on a logarithmic scale."""
    places = by_place(report.layers)
    fig, ax = _rows_by_group(list(places))
    ys = np.arange(len(places))
    ann = np.array([1e3 * sum(map(report.ann_energy_mj, rows)) for rows in places.values()])
    ours = np.array([1e3 * sum(map(report.energy_mj, rows)) for rows in places.values()])
    reads = [_main_reading(report, rows) for rows in places.values()]
    options = {"s": 16, "zorder": 2, "clip_on": False}
    ax.scatter(ann, ys, facecolors="white", edgecolors=ANN, label="as an ANN", **options)
    for kind, color in READS.items():
        chosen = np.array([r == kind for r in reads]) & (ours > 0)
        if chosen.any():
            ax.scatter(
                ours[chosen], ys[chosen], color=color, label=f"mostly reads {kind}", **options
            )
    ax.set(xscale="log", xlabel="energy per image, µJ (logarithmic)")
    fig.legend(loc="outside lower center", ncols=4, fontsize=8)
    return fig


def firing_rates(neurons: Sequence[NeuronRow]) -> plt.Figure:
    """A dot per layer of neurons, or block of such layers, and time step, at most 100 %.

    Integers count by binary frame, of which they are D in a step.

    Args:
        neurons: The layers of neurons.
    """
    places = by_place(neurons)
    fig, ax = _rows_by_group(list(places))
    steps = max(row.time_steps for row in neurons)
    levels = {row.levels for row in neurons}
    what = "firing rate" if levels == {1} else f"firing rate per binary frame, D = {spell(levels)}"
    colors = mpl.colormaps["viridis"](np.linspace(0.1, 0.85, steps))
    for t, color in enumerate(colors):
        for y, rows in enumerate(places.values()):
            found = [100 * row.frame_rates[t] for row in rows if row.time_steps > t]
            if found:
                mean = sum(found) / len(found)
                ax.scatter(mean, y, color=color, s=14, clip_on=False, zorder=2 + t)
        ax.scatter([], [], color=color, s=14, label=f"step {t + 1}")
    ax.set(xlim=(0, None), xlabel=f"{what}, % (mean over the layers of neurons of a row)")
    if steps > 1:
        fig.legend(loc="outside lower center", ncols=min(steps, 6), fontsize=8)
    return fig


def _by_part(report: EnergyReport) -> plt.Figure:
    parts: dict[str, list[LayerRow]] = {}
    for row in report.layers:
        parts.setdefault(row.part, []).append(row)
    fig, ax = plt.subplots(figsize=(6, 1.3 + 0.5 * len(parts)), layout="constrained")
    places = np.arange(len(parts))
    left = np.zeros(len(parts))
    for reads, color in READS.items():
        energy = np.array(
            [sum(report.energy_mj(r) for r in rows if r.reads == reads) for rows in parts.values()]
        )
        if energy.any():
            ax.barh(places - 0.2, energy, 0.36, left=left, color=color, label=f"reads {reads}")
        left += energy
    ann = np.array([sum(map(report.ann_energy_mj, rows)) for rows in parts.values()])
    ax.barh(places + 0.2, ann, 0.36, color=ANN, label="as an ANN, one pass")
    whole = left.sum() or 1.0
    for place, spent, real in zip(places, left, ann, strict=True):
        text = f"{spent:.3g} mJ, {100 * spent / whole:.0f} %"
        ax.annotate(text, (spent, place - 0.2), (3, 0), textcoords="offset points", va="center")
        text = f"{real:.3g} mJ"
        ax.annotate(text, (real, place + 0.2), (3, 0), textcoords="offset points", va="center")
    ax.set(xlabel="energy per image, mJ", xlim=(0, 1.25 * max(*left, *ann, 1e-12)))
    ax.set_yticks(places, map(readable_part, parts))
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    fig.legend(fontsize=8, loc="outside lower center", ncols=4)
    return fig


def spell(levels: Iterable[int]) -> str:
    """Numbers of levels D in a text."""
    return " and ".join(map(str, sorted(levels)))


def _main_reading(report: EnergyReport, rows: Iterable[LayerRow]) -> str:
    """What the layers read on which most of a row's energy is spent."""
    spent: dict[str, float] = {}
    for row in rows:
        spent[row.reads] = spent.get(row.reads, 0.0) + report.energy_mj(row)
    return max(spent, key=lambda reads: spent[reads])


def _rows_by_group(places: Sequence[tuple[str, str]]) -> tuple[plt.Figure, plt.Axes]:
    """An empty figure with a line per unit and a band per group, whose name stands on the right."""
    height = 1.1 + _ROW * len(places)
    fig, ax = plt.subplots(figsize=(6, height), layout="constrained")
    ax.set_yticks(range(len(places)), [unit for _, unit in places], fontsize=7)
    ax.set_ylim(len(places) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", alpha=0.3, lw=0.5)
    names = [group for group, _ in places]
    for i, group in enumerate(dict.fromkeys(names)):
        first, count = names.index(group), names.count(group)
        if i % 2 == 0:
            ax.axhspan(first - 0.5, first + count - 0.5, color="#f3f3f3", lw=0, zorder=0)
        middle = first + (count - 1) / 2
        at = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8}
        ax.text(1.02, middle, group, **at)
    return fig, ax
