"""Compare models, trained over seeds and T: accuracy, energy, firing rates and time.

Trains every config, of a detector, segmentor or classifier, with several seeds (or takes
checkpoints), with --twin its ANN twin too, and measures each in a process of its own. Writes
comparison.md, .csv, .tex and .json, and comparison.pdf and .png. What is finished is never done
twice: the same command goes on where it was stopped. docs/comparing.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from compare_plots import draw_comparison
from compare_runs import Run, device, measure, preload, prepare, train
from compare_tables import aggregate, write_tables
from mmengine.config import Config

from mmspike.energy import Conventions
from mmspike.engine.command_line import apply_options, parse_options, read_config_file
from mmspike.engine.configs import as_list, is_pretrained
from mmspike.engine.twin import TWIN_DEFINITION, ann_twin, is_same_training, with_time_steps

RATES = (
    "D: spikes that a neuron may send in a time step, - without neurons that spike. Firing rate "
    "per frame: spikes per neuron and binary frame, of T x D frames an image: at most 100 %. "
    "Spikes per neuron and step: the mean integer, from 0 to D. Where D is 1, both are the same "
    "number. Each is the mean over the layers of neurons."
)
"""What stands under every table with spikes in it."""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", help="config files")
    parser.add_argument("--twin", action="store_true", help="add the ANN twin of every config")
    parser.add_argument(
        "--time-steps", nargs="+", type=int, metavar="T", help="every config with each of these T"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="trainings of each, of seeds 0, 1, 2 (3)"
    )
    parser.add_argument(
        "--checkpoints", nargs="+", metavar="FILE", help="one per config: these are not trained"
    )
    parser.add_argument(
        "--twin-checkpoints", nargs="+", metavar="FILE", help="one per config, of the twins"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for all configs"
    )
    parser.add_argument(
        "--twin-options", nargs="+", default=[], metavar="KEY=VALUE", help="for the twins alone"
    )
    parser.add_argument(
        "--num-images",
        type=int,
        help="measure so many test images: the first, of classifiers from all of them",
    )
    parser.add_argument("--speed-images", type=int, default=20, help="images that are timed (20)")
    parser.add_argument("--per-class", action="store_true", help="add the IoU of every class")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("work_dirs/compare"), help="folder of the trainings"
    )
    parser.add_argument("--out", type=Path, help="folder of tables and figure; default: --work-dir")
    args = parser.parse_args()
    for name in ("seeds", "num_images", "speed_images"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if min(args.time_steps or [1]) < 1:
        parser.error(f"--time-steps must be at least 1, got {args.time_steps}")
    for name in ("checkpoints", "twin_checkpoints"):
        files = getattr(args, name)
        if files is not None and len(files) != len(args.configs):
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{len(args.configs)} configs, {len(files)} {option}")
        for file in files or []:
            if not Path(file).is_file():
                parser.error(f"no file {file}")
    if (args.twin_checkpoints or args.twin_options) and not args.twin:
        parser.error("--twin-checkpoints and --twin-options go with --twin")
    return args


def variants_of(args: argparse.Namespace) -> Iterator[Run]:
    """Every model, in a folder of its name, without a seed.

    Raises:
        SystemExit: If a config cannot be read, or has no twin or time steps.
    """
    for i, path in enumerate(args.configs):
        name, options = Path(path).stem, parse_options(args.cfg_options)
        cfg = read_config_file("compare", path, options)
        given = Path(args.checkpoints[i]) if args.checkpoints else None
        if "test_dataloader" not in cfg or "test_evaluator" not in cfg:
            raise SystemExit(f"compare: {path} has no test_dataloader and test_evaluator")
        try:
            for steps in args.time_steps or [None]:
                other = cfg if steps is None else with_time_steps(cfg, steps)
                model = name if steps is None else f"{name}_t{steps}"
                yield Run(model, path, other, False, args.work_dir / model, checkpoint=given)
            if args.twin:
                twin = ann_twin(cfg)
                apply_options(twin, parse_options(args.twin_options))
                given = Path(args.twin_checkpoints[i]) if args.twin_checkpoints else None
                folder = args.work_dir / f"{name}_ann"
                yield Run(folder.name, path, twin, True, folder, None, given, [name])
        except ValueError as error:
            raise SystemExit(f"compare: {error}") from error


def plan(args: argparse.Namespace) -> list[Run]:
    """All runs: each model with each seed, or with its checkpoint.

    Raises:
        SystemExit: If two models have one name.
    """
    models = list(variants_of(args))
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise SystemExit(f"compare: two models are called {name}; rename one of the configs")
    runs: list[Run] = []
    for model in one_of_each_twin(models):
        if model.checkpoint is not None:
            runs.append(replace(model, folder=model.folder / "given"))
            continue
        for seed in range(args.seeds):
            cfg = model.cfg.copy()
            cfg.merge_from_dict({"randomness.seed": seed})
            runs.append(replace(model, cfg=cfg, folder=model.folder / f"seed_{seed}", seed=seed))
    return runs


def one_of_each_twin(models: Iterable[Run]) -> list[Run]:
    """The models, without twins that are trained as another is; that one is the twin of both."""
    kept: list[Run] = []
    for model in models:
        trained = model.is_twin and model.checkpoint is None
        for i, other in enumerate(kept if trained else []):
            both = other.is_twin and other.checkpoint is None
            if both and is_same_training(other.cfg, model.cfg):
                first = other if other.folder.is_dir() or not model.folder.is_dir() else model
                kept[i] = replace(first, twin_of=other.twin_of + model.twin_of)
                break
        else:
            kept.append(model)
    return kept


def notes_on(
    args: argparse.Namespace, runs: Sequence[Run], rows: Sequence[dict[str, Any]]
) -> list[str]:
    """What stands under the table."""
    seeds = len({run.seed for run in runs} - {None})
    c = Conventions()
    notes = [
        f"{date.today()}, {platform.machine()}, {device()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}.",
        f"Accuracy, firing rate and times: mean and standard deviation over {seeds} seeds."
        if seeds > 1
        else "One run of each model.",
        "Energy: mean and standard deviation over images, as docs/energy.md counts it "
        f"({c.mac_pj} pJ per MAC, {c.ac_pj} pJ per addition).",
    ]
    notes += dict.fromkeys(_images_of(row, args.num_images) for row in rows)
    notes += dict.fromkeys(_warning_of(row) for row in rows if row["trained_otherwise"])
    notes += dict.fromkeys(f"{r['model']}: {_untold(r)}." for r in rows if not r["metrics"])
    if any(row["levels"] for row in rows):
        notes.append(RATES)
    trained = sorted({str(r["train_device"]) for r in rows if r["train_minutes"] is not None})
    if trained:
        on = " and, others, on ".join(trained).replace("None", "a device that was not noted")
        notes.append(
            f"Training: wall-clock time of a run, start and validations included, on {on}."
        )
    if any(run.is_twin for run in runs):
        notes.append(TWIN_DEFINITION)
        for name, twin_of in {run.name: run.twin_of for run in runs}.items():
            if len(twin_of) > 1:
                notes.append(f"{name} is the twin of {' and '.join(twin_of)}: it was trained once.")
        if args.twin_options:
            notes.append(f"Settings of the twins alone: {', '.join(args.twin_options)}.")
        if any(_is_pretrained(run.cfg) for run in runs if run.is_twin and run.seed is not None):
            notes.append("The twin's training started from weights made for the spiking network.")
    firing = sorted({r["model"] for r in rows if r["is_twin"] and r["levels"]})
    if firing:
        notes.append(f"These twins still have neurons that spike: {', '.join(firing)}.")
    return notes


def _images_of(row: dict[str, Any], num_images: int | None) -> str:
    """On what a row was measured, in words."""
    number, chosen = row["num_images"], f" (--num-images {num_images})"
    if num_images is None:
        number, chosen = f"all {number}", ""
    what = f"{number} test images of {row['dataset']}{chosen}"
    return f"Accuracy, energy and firing rates are of {what}."


def _untold(row: dict[str, Any]) -> str:
    """Why a row has no metric, in words."""
    tested = ", ".join(row["tested"]) or "nothing"
    return f"no finite metric that is known here; test_evaluator gave {tested}"


def _warning_of(row: dict[str, Any]) -> str:
    """That a row's weights come from a model that computes otherwise, in words."""
    return (
        f"WARNING: the weights of {row['model']} ({row['checkpoint']}) were trained with other "
        f"settings, which are not in them: {row['trained_otherwise']}."
    )


def _is_pretrained(cfg: Config) -> bool:
    given = (cfg.model.get("init_cfg"), cfg.model.get("backbone", {}).get("init_cfg"))
    return any(is_pretrained(c) for init_cfg in given for c in as_list(init_cfg))


def main() -> None:
    """Train, measure, and write the comparison."""
    args = parse_args()
    options = ["--speed-images", args.speed_images]
    options += ["--num-images", args.num_images] if args.num_images else []
    options += ["--per-class"] if args.per_class else []
    runs, rows = plan(args), []
    for run in runs:
        prepare(run)
    preload(runs)
    for i, run in enumerate(runs):
        print(f"[{i + 1}/{len(runs)}] {run} ({run.folder})", flush=True)
        print(f"    {train(run)}", flush=True)
        rows.append(measure(run, options))
        scores = ", ".join(f"{k} {v:.2f} %" for k, v in rows[-1]["metrics"].items())
        scores = scores or _untold(rows[-1])
        print(f"    {scores}, {rows[-1]['energy_mj']:.3f} mJ per image", flush=True)
        if rows[-1]["trained_otherwise"]:
            print(f"    {_warning_of(rows[-1])}", flush=True)
    out = args.out or args.work_dir
    out.mkdir(parents=True, exist_ok=True)
    models, notes = aggregate(rows), notes_on(args, runs, rows)
    files = [out / "comparison.json", *write_tables(models, notes, out / "comparison")]
    files[0].write_text(json.dumps({"notes": notes, "models": models, "runs": rows}, indent=1))
    files += draw_comparison(models, out / "comparison")
    print(f"\n{(out / 'comparison.md').read_text()}")
    for file in files:
        print(file)


if __name__ == "__main__":
    main()
