"""The figure of a comparison: every measure against T, spiking networks and ANN twins together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from compare_tables import shown_metrics

from mmspike.energy.plots import STYLE, save_figure

Model = dict[str, Any]
COLORS = ("#2a6f97", "#e07a1f", "#4f8a3c", "#9c2c2c", "#6a4c93", "#8a8a8a")
COSTS = {  # key: heading, key of its spread
    "energy_mj": ("energy per image, mJ", "energy_sd_mj"),
    "rate_per_frame": ("firing rate per frame, %", "rate_per_frame_sd"),
    "ms_per_image": ("time per image, ms", "ms_per_image_sd"),
}


def draw_comparison(models: Sequence[Model], path: Path) -> list[Path]:
    """Draw a panel per measure: a series per config over T, its twin as a hollow square at T = 1.

    Args:
        models: Of :func:`compare_tables.aggregate`.
        path: Files to write, without their endings.

    Returns:
        The ``.pdf`` and the ``.png`` file.
    """
    with mpl.rc_context(STYLE):
        return save_figure(comparison_figure(models), path)


def comparison_figure(models: Sequence[Model]) -> plt.Figure:
    """The figure of :func:`draw_comparison`, not written."""
    panels = {m: (f"{m}, %", f"{m}_sd") for m in shown_metrics(models)}
    panels |= {k: v for k, v in COSTS.items() if any(model[k] is not None for model in models)}
    series: dict[tuple[str, str], list[Model]] = {}
    for model in models:
        series.setdefault((model["config"], model["kind"]), []).append(model)
    levels = [points[0]["levels"] for points in series.values()]
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.4 * columns, 2.1 * rows + 0.5 + 0.18 * len(series)),
        layout="constrained",
        squeeze=False,
    )
    steps = sorted({model["time_steps"] for model in models})
    for ax, (key, (heading, spread)) in zip(axes.flat, panels.items(), strict=False):
        for i, points in enumerate(series.values()):
            shift = 0.3 * ((i + 0.5) / len(series) - 0.5)  # beside the others of the same T
            places = {t: x + shift for x, t in enumerate(steps)}
            known = [p for p in points if p.get(key) is not None]
            if known:
                xs = [places[p["time_steps"]] for p in known]
                spreads = [p.get(spread) or 0.0 for p in known]
                whole = {"clip_on": False}  # the marker of 0, which the axis would halve
                ax.errorbar(xs, [p[key] for p in known], spreads, **_style(series, i), **whole)
        _finish(ax, heading, steps, key in COSTS)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    handles = [plt.errorbar([], [], [], **_style(series, i)) for i in range(len(series))]
    names = short_names([Path(config).stem for config, _ in series])
    labels = [
        f"{name} ({kind}{'' if d in (None, '1') else f', D = {d}'})"
        for name, (_, kind), d in zip(names, series, levels, strict=True)
    ]
    title = "bars: standard deviation over seeds; of the energy, over images"
    fig.legend(handles, labels, loc="outside lower center", title=title, title_fontsize=7)
    return fig


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the parts between ``_`` that all have; equal ones keep their first two.

    Of names with different numbers of parts, nothing is left out.
    """
    parts = [name.split("_") for name in names]
    if len({len(p) for p in parts}) > 1:
        return list(names)
    differ = [i for i, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
    return ["_".join(p[i] for i in differ or range(min(2, len(p)))) for p in parts]


def _style(series: dict[tuple[str, str], list[Model]], index: int) -> dict[str, Any]:
    """One colour for a config and its twin, whose marker is hollow."""
    config, kind = list(series)[index]
    configs = list(dict.fromkeys(config for config, _ in series))
    style = {"color": COLORS[configs.index(config) % len(COLORS)], "ms": 5, "lw": 1, "capsize": 2}
    return style | ({"fmt": "o-"} if kind == "SNN" else {"fmt": "s", "mfc": "white"})


def _finish(ax: plt.Axes, heading: str, steps: Sequence[int], from_zero: bool) -> None:
    ax.set_title(heading)
    ax.set_xticks(range(len(steps)), [str(t) for t in steps])
    ax.set(xlabel="time steps T", xlim=(-0.5, len(steps) - 0.5))
    ax.grid(axis="y", alpha=0.3, lw=0.5)
    low, high = ax.get_ylim()
    margin = 0.05 * (high - (0 if from_zero else low))  # of the axis, which may be the longer
    ax.set_ylim(0 if from_zero else max(0, low - margin), high + margin)
