"""Tables of a comparison: means and spreads over seeds, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmspike.energy.formats import latex_table

METRICS = ("bbox mAP", "segm mAP", "mAP", "mIoU")
"""Those that tables and figure show, in this order, and then top-1; all are in the CSV file."""
Model = dict[str, Any]


def aggregate(rows: Iterable[Model]) -> list[Model]:
    """One entry per model: means over its runs, and standard deviations as ``<key>_sd``.

    Args:
        rows: Of :func:`compare_runs.measure`, one per run.

    Returns:
        In the order of the rows: ``model``, ``config``, ``kind``, ``time_steps``, ``levels`` (D; in
        words where there are several, ``None`` without neurons that spike), ``runs``, the metrics
        by name, ``energy_mj`` and, over images, ``energy_sd_mj``, ``rate_per_frame`` and
        ``rate_per_frame <part>`` (percent, the mean over steps), ``spikes_per_step``,
        ``train_minutes``, ``ms_per_image``, ``params_m``, ``gmacs``, ``ann_energy_mj``,
        ``peak_mib``, ``dataset``, ``num_images``. A standard deviation of one run is ``None``.
    """
    by_model: dict[str, list[Model]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    return [_aggregate(runs) for runs in by_model.values()]


def _aggregate(runs: Sequence[Model]) -> Model:
    first = runs[0]
    levels = " and ".join(map(str, first["levels"])) or None
    kind = "ANN twin" if first["is_twin"] else "SNN" if levels else "ANN"
    model = {"model": first["model"], "config": first["config"], "kind": kind}
    model |= {"time_steps": first["time_steps"], "levels": levels, "runs": len(runs)}

    def add(name: str, value: Callable[[Model], float | None]) -> None:
        values = [value(run) for run in runs]
        known = [v for v in values if v is not None]
        model[name] = mean(known) if known else None
        model[f"{name}_sd"] = stdev(known) if len(known) > 1 else None

    for name in first["metrics"]:
        add(name, lambda run, name=name: run["metrics"].get(name))
    add("energy_mj", lambda run: run["energy_mj"])
    spreads = [run["energy_sd_mj"] for run in runs]
    model["energy_sd_mj"] = None if None in spreads else sqrt(mean(s * s for s in spreads))
    add("rate_per_frame", lambda run: run["rate_per_frame"])
    for part in first["rates_per_frame"]:
        name = f"rate_per_frame {part}"
        add(name, lambda run, part=part: mean(run["rates_per_frame"].get(part, [0.0])))
    for name in (
        "spikes_per_step",
        "train_minutes",
        "ms_per_image",
        "params_m",
        "gmacs",
        "ann_energy_mj",
        "peak_mib",
    ):
        add(name, lambda run, name=name: run[name])
    return model | {"dataset": first["dataset"], "num_images": first["num_images"]}


def write_tables(models: Sequence[Model], notes: Sequence[str], path: Path) -> list[Path]:
    """Write the comparison.

    Args:
        models: Of :func:`aggregate`.
        notes: What stands under the table.
        path: Files to write, without their endings.

    Returns:
        Three files: Markdown, CSV with all numbers as they are, and LaTeX.
    """
    headings, cells = _cells(models)
    files = [path.with_suffix(ending) for ending in (".md", ".csv", ".tex")]
    lines = [headings, ["---"] * 2 + ["---:"] * (len(headings) - 2), *cells]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    files[0].write_text(f"{table}\n\n" + "\n".join(f"- {note}" for note in notes) + "\n")
    with files[1].open("w", newline="") as file:
        keys = list(dict.fromkeys(key for model in models for key in model))
        writer = csv.DictWriter(file, keys, restval="")
        writer.writeheader()
        writer.writerows(models)
    files[2].write_text(latex_table(headings, cells, "\n".join(notes), texts=2))
    return files


def shown_metrics(models: Sequence[Model]) -> list[str]:
    """The metrics that tables and figure show; of a model without top-1, its least k instead."""
    shown = [m for m in METRICS if any(m in model for model in models)]
    numbers = [[int(k[4:]) for k in m if k.startswith("top-") and k[4:].isdigit()] for m in models]
    return shown + [f"top-{k}" for k in sorted({min(ks) for ks in numbers if ks})]


def _cells(models: Sequence[Model]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line of cells per model."""
    shown = shown_metrics(models)
    shown += [key for model in models for key in model if key.startswith("IoU.")]
    shown = [key for key in dict.fromkeys(shown) if not key.endswith("_sd")]
    headings = ["model", "kind", "T", "D", "runs", *(f"{name}, %" for name in shown)]
    headings += ["energy, mJ", "firing rate per frame, %", "spikes per neuron and step"]
    headings += ["training, min", "ms per image", "parameters, M", "GMAC"]
    rows = [
        [
            model["model"],
            model["kind"],
            str(model["time_steps"]),
            model["levels"] or "-",
            str(model["runs"]),
            *(_number(model, name, ".1f") for name in shown),
            _number(model, "energy_mj", ".3g", "energy_sd_mj"),
            _number(model, "rate_per_frame", ".1f"),
            _number(model, "spikes_per_step", ".3g"),
            _number(model, "train_minutes", ".3g"),
            _number(model, "ms_per_image", ".3g"),
            _number(model, "params_m", ".2f", ""),
            _number(model, "gmacs", ".3g", ""),
        ]
        for model in models
    ]
    return headings, rows


def _number(model: Model, key: str, form: str, spread: str | None = None) -> str:
    """A number and its spread; a dash for what a model does not have."""
    value = model.get(key)
    if value is None:
        return "-"
    sd = model.get(f"{key}_sd" if spread is None else spread)
    if sd is None:
        return f"{value:{form}}"
    sd = sd if sd > 1e-6 * abs(value) else 0.0  # less is rounding
    return f"{value:{form}} ± {sd:{form.replace('.3g', '.2g')}}"
