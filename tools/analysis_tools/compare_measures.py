"""Measure one trained model for a comparison: accuracy, energy, firing rates, time and memory.

Writes a JSON file. It is a process of its own, so that the memory it measures is the model's alone.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn

import mmspike.registry  # noqa: F401  makes "mmseg::" known in configs
from mmspike.checkpoints import load_whole
from mmspike.energy import EnergyCounter, EnergyReport
from mmspike.energy.firing_rate import rates_per_frame
from mmspike.engine.command_line import checkpoints_from_outside
from mmspike.engine.configs import as_list, host_of, type_name, use_scope
from mmspike.engine.misfits import misfits_in_words
from mmspike.engine.preflight.report import spread
from mmspike.engine.weights import keep_runner_from_loading

# what the hosts call them: in percent, and as we call them
METRICS = {
    "coco/bbox_mAP": (100.0, "bbox mAP"),
    "coco/segm_mAP": (100.0, "segm mAP"),
    "coco/bbox_mAP_50": (100.0, "bbox mAP50"),
    "coco/segm_mAP_50": (100.0, "segm mAP50"),
    "pascal_voc/mAP": (100.0, "mAP"),
    "mIoU": (1.0, "mIoU"),
    "aAcc": (1.0, "aAcc"),
}
_TOP_K = "accuracy/top"
"""How the accuracy among the likeliest k classes begins, also in percent; the number follows."""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--num-images", type=int, help="only the first so many images")
    parser.add_argument("--speed-images", type=int, default=20, help="images that are timed (20)")
    parser.add_argument("--per-class", action="store_true", help="add the IoU of every class")
    return parser.parse_args()


class EnergyPerImage(Hook):
    """Notes the energy of every image of a test with one image in a batch, in millijoules."""

    def __init__(self, counter: EnergyCounter) -> None:
        self.counter = counter
        self.sums = [0.0]

    def after_test_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Note what all images so far have cost."""
        self.sums.append(self.counter.report(1).total["energy_mj"])

    def spread(self) -> float | None:
        """Standard deviation over the images; of one image, there is none."""
        energies = [b - a for a, b in zip(self.sums, self.sums[1:], strict=False)]
        return stdev(energies) if len(energies) > 1 else None


def measure_model(
    cfg: Config,
    checkpoint: str,
    *,
    num_images: int | None = None,
    speed_images: int = 20,
    per_class: bool = False,
) -> dict[str, Any]:
    """Evaluate a detector, segmentor or classifier on its test data and measure what it costs.

    Args:
        cfg: Config; changed in place.
        checkpoint: Checkpoint file.
        num_images: Number of images, from the first; of a classifier, whose data sets are sorted
            by class, from all of them. ``None`` for all.
        speed_images: Images that are timed, one by one, after two that are not.
        per_class: Whether to add the IoU of every class of a segmentor.

    Returns:
        A row: ``checkpoint``, ``trained_otherwise`` (what :func:`load_whole` returns), ``dataset``,
        ``num_images``, ``time_steps``, ``metrics`` in percent, ``tested`` (the host's
        names of all), ``params_m`` in millions, ``gmacs`` (one pass on real values, 10^9
        multiply-accumulates),
        ``levels`` (D of the neurons, each value once; empty without any), ``rate_per_frame``
        (spikes per neuron and binary frame, of T * D frames an image, in percent) and
        ``spikes_per_step`` (the mean integer, from 0 to D), both means over the layers of neurons,
        ``None`` without any, ``rates_per_frame`` (by part, for every step), ``energy_mj`` (mean per
        image),
        ``energy_sd_mj`` (over images) and, of the same network on real values, ``ann_energy_mj``
        (see :mod:`mmspike.energy`), ``ms_per_image``, and ``peak_mib`` (of the process on a CPU,
        of the tensors on a GPU).
    """
    keep_runner_from_loading(cfg)
    cfg.update(launcher="none")
    cfg.test_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    cfg.test_dataloader.pop("prefetch_factor", None)
    if num_images is not None:
        cfg.test_dataloader.dataset.indices = choose_images(cfg, num_images)
    for metric in as_list(cfg.test_evaluator) if per_class else []:
        if type_name(metric) == "IoUMetric":
            metric.type = "mmspike.seg.PerClassIoUMetric"
    with tempfile.TemporaryDirectory() as work_dir:
        cfg.work_dir = work_dir
        runner = Runner.from_cfg(cfg)
        model = runner.model.eval()
        trained_otherwise = load_whole(model, checkpoint)
        dataset = runner.test_dataloader.dataset
        seconds = time_images(model, islice(runner.test_dataloader, speed_images + 2))
        peak = peak_memory()
        score_these_alone(runner)
        with EnergyCounter(model) as counter:
            energies = EnergyPerImage(counter)
            runner.register_hook(energies)
            metrics = runner.test()
        energy = counter.report(len(dataset))
    rates = rates_per_frame(energy.neurons)
    return {
        "checkpoint": Path(checkpoint).name,
        "trained_otherwise": trained_otherwise,
        "dataset": describe(dataset),
        "num_images": len(dataset),
        "time_steps": getattr(model.backbone, "time_steps", 1),
        "metrics": in_percent(metrics),
        "tested": sorted(metrics),
        "params_m": sum(p.numel() for p in model.parameters()) / 1e6,
        "gmacs": energy.total["macs"] / 1e9,
        "levels": sorted({row.levels for row in energy.neurons}),
        "rate_per_frame": 100 * mean(rates.values()) if rates else None,
        "spikes_per_step": energy.firing_rate if energy.neurons else None,
        "rates_per_frame": rates_by_part(energy),
        "energy_mj": energy.total["energy_mj"],
        "energy_sd_mj": energies.spread(),
        "ann_energy_mj": energy.total["ann_energy_mj"],
        "ms_per_image": 1e3 * seconds,
        "peak_mib": peak,
    }


def choose_images(cfg: Config, num_images: int) -> int | list[int]:
    """What a data set of mmengine's takes as its ``indices``."""
    if host_of(cfg) != "mmpretrain":
        return num_images
    use_scope(cfg)
    return spread(range(len(DATASETS.build(cfg.test_dataloader.dataset))), num_images)


def score_these_alone(runner: Runner) -> None:
    """Let COCO's metric judge the images of the data set, not all that its file names."""
    dataset = runner.test_dataloader.dataset
    for metric in runner.test_loop.evaluator.metrics:
        if getattr(metric, "_coco_api", None) is not None and hasattr(metric, "img_ids"):
            metric.img_ids = [dataset.get_data_info(i)["img_id"] for i in range(len(dataset))]


def in_percent(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that are known, by our names, in percent; other numbers are left out."""
    known = {name: f * metrics[key] for key, (f, name) in METRICS.items() if key in metrics}
    ks = [key.removeprefix(_TOP_K) for key in metrics if key.startswith(_TOP_K)]
    known |= {f"top-{k}": metrics[_TOP_K + k] for k in sorted(filter(str.isdigit, ks), key=int)}
    classes = {k: v for k, v in metrics.items() if k.startswith("IoU.")}
    return {k: float(v) for k, v in (known | classes).items() if math.isfinite(v)}


def rates_by_part(report: EnergyReport) -> dict[str, list[float]]:
    """Mean firing rate per binary frame of every part's neurons, in percent, for every step."""
    parts: dict[str, list[list[float]]] = {}
    for row in report.neurons:
        parts.setdefault(row.part, []).append(row.frame_rates)
    return {
        part: [100 * sum(step) / len(step) for step in zip(*rates, strict=False)]
        for part, rates in parts.items()
    }


def describe(dataset: Any) -> str:
    """The name of a data set: its class, or where it lies if the class says nothing."""
    name = type(dataset).__name__.removesuffix("Dataset")
    return Path(dataset.data_root).name if name in ("BaseSeg", "Coco", "Custom") else name


@torch.no_grad()
def time_images(model: nn.Module, batches: Iterable[dict]) -> float:
    """Time a model image by image, preparation and enlarging of its output included.

    Returns:
        Seconds per image, the median.
    """
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        model.test_step(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds[2:] or seconds)


def peak_memory() -> float:
    """The most memory held so far, in MiB: of tensors on the GPU, else of the whole process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


def main() -> None:
    """Measure, and write the row."""
    args = parse_args()
    cfg = Config.fromfile(args.config)
    with checkpoints_from_outside(), misfits_in_words("compare", cfg):
        row = measure_model(
            cfg,
            args.checkpoint,
            num_images=args.num_images,
            speed_images=args.speed_images,
            per_class=args.per_class,
        )
    args.out.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
