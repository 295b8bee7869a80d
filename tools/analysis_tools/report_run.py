"""Draw a finished run: curves, predictions beside ground truth, and firing rates.

Reads the logs of a work dir, of all runs if training was resumed, and the data that the config
validates on: the first images; of a classifier, images from all of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.structures import BaseDataElement
from report_plots import (
    draw_classes,
    draw_curves,
    draw_firing_rates,
    draw_predictions,
    metrics_in,
    validations,
)

from mmspike.energy import EnergyCounter, EnergyReport
from mmspike.energy.firing_rate import NeuronRow, rates_per_frame
from mmspike.energy.plots import spell
from mmspike.engine.command_line import (
    check_device,
    checkpoints_from_outside,
    read_config_file,
)
from mmspike.engine.configs import use_scope
from mmspike.engine.inputs import build_model, val_batches
from mmspike.engine.misfits import misfits_in_words

SILENT = 1e-3


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("work_dir", help="folder of the run; pictures are written there")
    parser.add_argument("--num-images", type=int, default=8, help="images to draw (8)")
    parser.add_argument("--score-thr", type=float, default=0.5, help="least score to draw (0.5)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    args = parser.parse_args()
    if args.num_images < 1:
        parser.error(f"--num-images must be at least 1, got {args.num_images}")
    return args


def read_scalars(work_dir: Path, tool: str = "report_run") -> list[dict]:
    """Read the records of a training in a work dir, of all runs that it was resumed in.

    Args:
        work_dir: The folder.
        tool: The tool that reads, which errors name.

    Raises:
        SystemExit: If there is no log.
    """
    records: list[dict] = []
    for log in sorted(work_dir.glob("*/vis_data/scalars.json")):  # named after their time
        run = [json.loads(line) for line in log.read_text().splitlines()]
        steps = [record["step"] for record in run if "loss" in record]
        if steps:
            records = [*_before(records, steps), *run]
    if not records:
        if not work_dir.is_dir():
            raise SystemExit(f"{tool}: there is no folder {work_dir}")
        raise SystemExit(f"{tool}: no */vis_data/scalars.json of a training in {work_dir}")
    return records


def _before(records: list[dict], steps: list[int]) -> list[dict]:
    """What is left of earlier runs when another logs these steps: nothing, if it starts anew."""
    interval = steps[1] - steps[0] if len(steps) > 1 else 1
    if steps[0] <= interval:
        return []
    later = (i for i, r in enumerate(records) if "loss" in r and r["step"] >= steps[0])
    return records[: next(later, len(records))]


def tell_log(records: list[dict]) -> None:
    """Print the losses of a training, and what its last validation gave, and when."""
    losses = [r["loss"] for r in records if "loss" in r]
    print(f"loss: {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
    for record in validations(records)[-1:]:
        print(f"the last validation in the log, after step {record['step']} of training:")
        for key, (name, unit, *_) in metrics_in([record]).items():
            print(f"{name}: {record[key] * unit:.3f}")


def tell_firing_rates(neurons: Sequence[NeuronRow]) -> None:
    """Print the mean, and the layers that are silent."""
    if not neurons:
        print("firing rate: none, the model has no neurons that spike")
        return
    rates, levels = rates_per_frame(neurons), {row.levels for row in neurons}
    mean = sum(rates.values()) / len(rates)
    integers = "" if levels == {1} else f", per binary frame (D = {spell(levels)})"
    print(f"firing rate: {mean:.1%} on average over {len(rates)} layers of neurons{integers}")
    silent = [name for name, rate in rates.items() if rate < SILENT]
    print(f"silent layers (below {SILENT:.1%}): {', '.join(silent) or 'none'}")


def tell_energy(report: EnergyReport) -> None:
    """Print what an image costs, and what is not in it."""
    total = report.total
    print(f"energy: {total['energy_mj']:.3g} mJ per image, as an ANN {total['ann_energy_mj']:.3g}")
    if report.uncounted:
        print(f"energy, not counted: {', '.join(report.uncounted)}")


@torch.no_grad()
def predict(
    cfg: Config, args: argparse.Namespace
) -> tuple[list[BaseDataElement], dict[str, Any], EnergyReport]:
    """Predict on images that the config validates on, one by one.

    Returns:
        The predictions with their ground truth, the data set's ``metainfo``, and what was counted.

    Raises:
        SystemExit: If there is no such data.
    """
    try:
        loader = val_batches(cfg, args.num_images)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"report_run: no data to validate on: {error}") from error
    model = build_model(cfg, args.checkpoint, args.device)
    with EnergyCounter(model) as counter:
        samples = [sample for data in loader for sample in model.test_step(data)]
    return samples, loader.dataset.dataset.metainfo, counter.report(len(samples))


def main() -> None:
    """Draw the run."""
    args = parse_args()
    work_dir = Path(args.work_dir)
    check_device("report_run", args.device)
    cfg = read_config_file("report_run", args.config, args.cfg_options)
    use_scope(cfg)
    records = read_scalars(work_dir)
    draw_curves(records, work_dir / "curves.png")
    with checkpoints_from_outside(), misfits_in_words("report_run", cfg):
        samples, metainfo, report = predict(cfg, args)
    out = work_dir / "predictions.png"
    if "pred_score" in samples[0]:
        draw_classes(samples, metainfo, out)
    else:
        draw_predictions(samples, metainfo, args.score_thr, out)
    if report.neurons:
        draw_firing_rates(report.neurons, work_dir / "firing_rates.png")

    tell_log(records)
    print(f"of the checkpoint {args.checkpoint}, on {report.num_images} images:")
    tell_firing_rates(report.neurons)
    tell_energy(report)
    for name in ("predictions.*", "curves.*", "firing_rates.*"):
        is_new = report.neurons or not name.startswith("firing_rates")
        for file in sorted(work_dir.glob(name)):
            print(file if is_new else f"{file} is of an earlier report, not of this model")


if __name__ == "__main__":
    main()
