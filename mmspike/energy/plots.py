"""Pictures of a report, as PNG."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mmspike.energy.report import EnergyReport, LayerRow

_COLORS = {"spikes": "#2a6f97", "real values": "#e07a1f", "image": "#9c2c2c"}


def draw_report(report: EnergyReport, folder: str | Path) -> list[Path]:
    """Draw energy by layer, firing rate by layer and time step, and the share of every part.

    Args:
        report: What to draw.
        folder: Where to; made if it does not exist.

    Returns:
        The files: ``energy_by_layer.png``, ``firing_rates.png``, ``energy_by_part.png``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{report.model}, T = {report.time_steps}, mean of {report.num_images} image"
    title += f"{'s' * (report.num_images > 1)}\n{report.data}"
    figures = {
        "energy_by_layer.png": _by_layer(report),
        "firing_rates.png": _rates(report),
        "energy_by_part.png": _by_part(report),
    }
    for name, fig in figures.items():
        fig.suptitle(title, fontsize=9)
        fig.savefig(folder / name, dpi=120)
        plt.close(fig)
    return [folder / name for name in figures]


def _by_layer(report: EnergyReport) -> plt.Figure:
    rows = report.layers
    fig, ax = plt.subplots(figsize=(9, 1.8 + 0.13 * len(rows)), layout="constrained")
    energies = [1e3 * report.energy_mj(row) for row in rows]
    ax.barh(range(len(rows)), energies, color=[_COLORS[row.reads] for row in rows], height=0.8)
    _name_rows(ax, [row.name for row in rows])
    used = [reads for reads in _COLORS if any(row.reads == reads for row in rows)]
    handles = [mpl.patches.Patch(color=_COLORS[reads], label=f"reads {reads}") for reads in used]
    fig.legend(handles=handles, fontsize=8, loc="outside upper center", ncols=len(handles))
    ax.set(xlabel="energy per image, uJ")
    ax.grid(axis="x", alpha=0.3)
    return fig


def _rates(report: EnergyReport) -> plt.Figure:
    rows = report.neurons
    rates = np.full((len(rows), report.time_steps), np.nan)
    for i, row in enumerate(rows):
        rates[i, : row.time_steps] = np.array(row.rates) * 100
    fig, ax = plt.subplots(
        figsize=(5.5 + 0.6 * report.time_steps, 1.5 + 0.13 * len(rows)), layout="constrained"
    )
    image = ax.imshow(rates, aspect="auto", cmap="viridis", vmin=0, interpolation="nearest")
    _name_rows(ax, [row.name for row in rows])
    steps = range(report.time_steps)
    ax.set_xticks(steps, [str(t + 1) for t in steps])
    ax.set(xlabel="time step")
    fig.colorbar(image, ax=ax, label="firing rate, %", shrink=0.5)
    return fig


def _by_part(report: EnergyReport) -> plt.Figure:
    parts: dict[str, list[LayerRow]] = {}
    for row in report.layers:
        parts.setdefault(row.part, []).append(row)
    fig, axes = plt.subplots(
        1, 2, figsize=(9, 2.0 + 0.35 * len(parts)), layout="constrained", sharey=True
    )
    places = np.arange(len(parts))
    left = np.zeros(len(parts))
    for reads, color in _COLORS.items():
        energy = np.array(
            [sum(report.energy_mj(r) for r in rows if r.reads == reads) for rows in parts.values()]
        )
        if energy.any():
            axes[0].barh(places, energy, left=left, color=color, label=f"reads {reads}")
        left += energy
    whole = left.sum() or 1.0
    labels = [f"{e:.3g} mJ, {100 * e / whole:.0f} %" for e in left]
    for place, end, label in zip(places, left, labels, strict=True):
        axes[0].text(end, place, f" {label}", va="center", fontsize=8)
    axes[0].set(xlabel="energy per image, mJ", xlim=(0, 1.45 * max(left, default=1) or 1))
    fig.legend(fontsize=8, loc="outside lower center", ncols=len(_COLORS))
    ann = [sum(map(report.ann_energy_mj, rows)) for rows in parts.values()]
    bars = axes[1].barh(places, ann, color="#8a8a8a")
    axes[1].bar_label(bars, [f"{a:.3g} mJ" for a in ann], padding=3, fontsize=8)
    axes[1].set(xlabel="as an ANN, one pass, mJ", xlim=(0, 1.25 * max(ann, default=1) or 1))
    axes[0].set_yticks(places, list(parts))
    axes[0].invert_yaxis()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return fig


def _name_rows(ax: plt.Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), names, fontsize=6)
    ax.set_ylim(len(names) - 0.4, -0.6)
