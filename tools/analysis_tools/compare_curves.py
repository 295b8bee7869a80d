"""Print and draw one metric of several trainings over their steps, beside one another."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
from report_plots import BLUE, ORANGE, metrics_in
from report_run import read_scalars

from mmspike.energy.plots import STYLE, save_figure

mpl.use("Agg")
import matplotlib.pyplot as plt

mpl.rcParams.update(STYLE)

COLOURS = (BLUE, ORANGE, "#4a4a4a", "#6a9f58", "#8c6bb1")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", nargs="+", metavar="NAME=WORK_DIR", help="what a training is called, and its folder"
    )
    parser.add_argument(
        "--metric", default="mIoU", help="name in the log, or in reports, such as top-1 (mIoU)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="picture to write, as .png and .pdf"
    )
    args = parser.parse_args()
    args.runs = dict(run.split("=", 1) if "=" in run else (run, run) for run in args.runs)
    if len(args.runs) > len(COLOURS):
        parser.error(f"at most {len(COLOURS)} trainings fit a picture, got {len(args.runs)}")
    return args


def read_curve(work_dir: Path, metric: str) -> dict[int, float]:
    """The values of a metric by the last step of training that was logged before.

    Args:
        work_dir: Folder of the training.
        metric: Name in its log, or that in reports.

    Raises:
        SystemExit: If the logs have none; it names those that they have.
    """
    curve, step, logged = {}, 0, set()
    records = read_scalars(work_dir, "compare_curves")
    key = {name: key for key, (name, *_) in metrics_in(records).items()}.get(metric, metric)
    for record in records:  # a validation follows the training that it measures
        if "loss" in record:
            step = record["step"]
            continue
        logged |= record.keys() - {"step"}
        if key in record:
            curve[step] = record[key]
    if not curve:
        there = f"they have {', '.join(sorted(logged)) or 'no validation'}"
        raise SystemExit(f"compare_curves: the logs in {work_dir} have no {metric}; {there}")
    return curve


def table(curves: dict[str, dict[int, float]], metric: str) -> str:
    """The curves in Markdown, a row per step."""
    steps = sorted({step for curve in curves.values() for step in curve})
    lines = [f"| step | {' | '.join(f'{metric}, {name}' for name in curves)} |"]
    lines.append("| --- " * (len(curves) + 1) + "|")
    for step in steps:
        values = (f"{c[step]:.2f}" if step in c else "" for c in curves.values())
        lines.append(f"| {step} | {' | '.join(values)} |")
    return "\n".join(lines)


def draw(curves: dict[str, dict[int, float]], metric: str, out: Path) -> list[Path]:
    """Draw the curves; return the files."""
    fig, ax = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        ax.plot(list(curve), list(curve.values()), "o-", color=colour, label=name)
    ax.set(xlabel="step", ylabel=metric, xlim=(0, None), ylim=(0, None))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right")
    return save_figure(fig, out)


def main() -> None:
    """Print and draw."""
    args = parse_args()
    curves = {name: read_curve(Path(folder), args.metric) for name, folder in args.runs.items()}
    print(table(curves, args.metric))
    for file in draw(curves, args.metric, args.out):
        print(file)


if __name__ == "__main__":
    main()
