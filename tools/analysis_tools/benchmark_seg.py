"""Compare segmentors: accuracy, size, operations, firing rate, speed and memory, in one table.

Every config is evaluated on the data that it tests on, in a process of its own. Writes table.md,
table.csv, table.json and plot.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt

# key: heading, format, whether it is drawn
COLUMNS = {
    "config": ("config", "{}", False),
    "checkpoint": ("checkpoint", "{}", False),
    "dataset": ("data set", "{}", False),
    "num_images": ("images", "{}", False),
    "time_steps": ("T", "{}", False),
    "mIoU": ("mIoU, %", "{:.2f}", True),
    "aAcc": ("aAcc, %", "{:.2f}", False),
    "params_m": ("parameters, M", "{:.2f}", True),
    "gmacs": ("operations, GMAC", "{:.2f}", True),
    "firing_rate": ("firing rate, %", "{:.1f}", True),
    "energy_mj": ("energy, mJ", "{:.3f}", True),
    "ann_energy_mj": ("as an ANN, mJ", "{:.2f}", False),
    "images_per_s": ("images/s", "{:.2f}", True),
    "peak_mib": ("peak memory, MiB", "{:.0f}", False),
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", type=Path, help="config files")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        help="one per config; default: the last one in work_dirs/<name of the config>/",
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmark_seg"))
    parser.add_argument("--num-images", type=int, help="only the first so many images")
    parser.add_argument("--speed-images", type=int, default=20, help="images that are timed (20)")
    parser.add_argument("--per-class", action="store_true", help="add the IoU of every class")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for all configs"
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def find_checkpoints(args: argparse.Namespace) -> list[str]:
    """The checkpoints, one per config.

    Raises:
        SystemExit: If there are not as many as configs, or one is missing.
    """
    if args.checkpoints is None:
        notes = [Path("work_dirs") / c.stem / "last_checkpoint" for c in args.configs]
        missing = [str(n) for n in notes if not n.is_file()]
        if missing:
            raise SystemExit(f"benchmark_seg: no {missing[0]}; train first, or give --checkpoints")
        args.checkpoints = [n.read_text().strip() for n in notes]
    if len(args.checkpoints) != len(args.configs):
        raise SystemExit(
            f"benchmark_seg: {len(args.configs)} configs, {len(args.checkpoints)} checkpoints"
        )
    for file in (*args.configs, *map(Path, args.checkpoints)):
        if not file.is_file():
            raise SystemExit(f"benchmark_seg: no file {file}")
    return args.checkpoints


def run_worker(args: argparse.Namespace, config: Path, checkpoint: str) -> dict[str, Any]:
    """Measure one config in a process of its own, so that its memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, __file__, str(config), "--checkpoints", checkpoint]
        command += ["--worker", str(result), "--speed-images", str(args.speed_images)]
        command += ["--num-images", str(args.num_images)] if args.num_images else []
        command += ["--per-class"] if args.per_class else []
        command += ["--cfg-options", *args.cfg_options] if args.cfg_options else []
        if subprocess.run(command).returncode:
            raise SystemExit(f"benchmark_seg: {config} failed, see above; nothing was written")
        return json.loads(result.read_text())


def columns_of(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str, bool]]:
    """The columns that any row has, those of classes last."""
    classes = [key for row in rows for key in row if key.startswith("IoU.")]
    columns = COLUMNS | {key: (key.replace(".", " "), "{:.2f}", False) for key in classes}
    return {k: v for k, v in columns.items() if any(k in row for row in rows)}


def write_tables(rows: list[dict[str, Any]], machine: str, out: Path) -> str:
    """Write Markdown, CSV and JSON; give the Markdown."""
    columns = columns_of(rows)
    cells = [
        [
            form.format(row[key]) if row.get(key) is not None else ""
            for key, (_, form, _) in columns.items()
        ]
        for row in rows
    ]
    headings = [heading for heading, _, _ in columns.values()]
    lines = [headings, ["---"] * len(headings), *cells]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (out / "table.md").write_text(f"{table}\n\n{machine}\n")
    (out / "table.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return table


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Draw a bar per config for every column that is drawn."""
    drawn = {k: v for k, v in columns_of(rows).items() if v[2]}
    names = [f"{row['config']}\n{row['checkpoint']}, {row['dataset']}" for row in rows]
    places = range(len(rows))
    height = 0.5 * len(rows) + 1.2
    fig, axes = plt.subplots(
        1, len(drawn), figsize=(2.4 * len(drawn) + 2.5, height), layout="constrained", sharey=True
    )
    for ax, (key, (heading, form, _)) in zip(axes, drawn.items(), strict=True):
        values = [row.get(key) or 0.0 for row in rows]
        bars = ax.barh(places, values, color="#2a6f97", height=0.6)
        ax.bar_label(bars, [form.format(v) for v in values], padding=2, fontsize=8)
        ax.set(title=heading, xlim=(0, 1.3 * max(values, default=1) or 1))
        ax.title.set_fontsize(9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    axes[0].set_yticks(places, names)
    axes[0].invert_yaxis()
    fig.savefig(out / "plot.png", dpi=120)
    plt.close(fig)


def main() -> None:
    """Measure every config and write the table."""
    args = parse_args()
    checkpoints = find_checkpoints(args)
    if args.worker is not None:
        from segmentor_measures import measure_segmentor

        row = measure_segmentor(
            args.configs[0],
            checkpoints[0],
            options=args.cfg_options,
            num_images=args.num_images,
            speed_images=args.speed_images,
            per_class=args.per_class,
        )
        args.worker.write_text(json.dumps(row))
        return
    rows = []
    for i, (config, checkpoint) in enumerate(zip(args.configs, checkpoints, strict=True)):
        print(f"[{i + 1}/{len(checkpoints)}] {config} {checkpoint}", flush=True)
        rows.append(run_worker(args, config, checkpoint))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    machine = (
        f"{date.today()}, {device}, {torch.get_num_threads()} CPU threads, torch "
        f"{torch.__version__}, Python {platform.python_version()}. Operations and "
        "energy are means per image as docs/energy.md counts them: operations of one pass on real "
        "values, 4.6 pJ per MAC, 0.9 pJ per addition."
    )
    args.out.mkdir(parents=True, exist_ok=True)
    print(write_tables(rows, machine, args.out))
    draw(rows, args.out)
    for name in ("table.md", "table.csv", "table.json", "plot.png"):
        print(args.out / name)


if __name__ == "__main__":
    main()
