"""What a benchmark measures of one segmentor."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

import mmspike.registry  # noqa: F401  makes "mmseg::" known in configs
from mmspike.checkpoints import load_whole, read_safely_in_mmengine
from mmspike.energy import EnergyCounter
from mmspike.engine.command_line import apply_options, parse_options


def measure_segmentor(
    config: Path,
    checkpoint: str,
    *,
    options: Iterable[str] = (),
    num_images: int | None = None,
    speed_images: int = 20,
    per_class: bool = False,
) -> dict[str, Any]:
    """Evaluate a segmentor on its test data and measure what it costs.

    Args:
        config: Config file.
        checkpoint: Checkpoint file.
        options: ``key=value`` settings that replace the config's.
        num_images: Number of images, from the first; ``None`` for all.
        speed_images: Images that are timed, one by one, after two that are not.
        per_class: Whether to add the IoU of every class.

    Returns:
        A row: ``config``, ``checkpoint``, ``dataset``, ``num_images``, ``time_steps``, ``mIoU`` and
        ``aAcc`` in percent, ``params_m`` in millions, ``gmacs`` (one pass on real values, 10^9
        multiply-accumulates), ``firing_rate`` in percent (the mean over the layers of neurons),
        ``energy_mj`` and, of the same network on real values, ``ann_energy_mj``, both per image
        (see :mod:`mmspike.energy`), ``images_per_s``, ``peak_mib`` (of the process on a CPU, of the
        tensors on a GPU), and ``IoU.<class>``.
    """
    read_safely_in_mmengine()
    cfg = Config.fromfile(config)
    apply_options(cfg, parse_options(options))
    cfg.update(load_from=None, launcher="none", resume=False)
    cfg.test_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    if num_images is not None:
        cfg.test_dataloader.dataset.indices = num_images
    if per_class:
        metrics = cfg.test_evaluator
        for metric in metrics if isinstance(metrics, list | tuple) else [metrics]:
            if metric.type == "IoUMetric":
                metric.type = "mmspike.seg.PerClassIoUMetric"
    with tempfile.TemporaryDirectory() as work_dir:
        cfg.work_dir = work_dir
        runner = Runner.from_cfg(cfg)
        model = runner.model.eval()
        load_whole(model, checkpoint)
        dataset = runner.test_dataloader.dataset
        speed = time_images(model, islice(runner.test_dataloader, speed_images + 2))
        peak = peak_memory()
        with EnergyCounter(model) as counter:
            metrics = runner.test()
        energy = counter.report(len(dataset))
    return {
        "config": config.stem,
        "checkpoint": Path(checkpoint).name,
        "dataset": describe(dataset),
        "num_images": len(dataset),
        "time_steps": getattr(model.backbone, "time_steps", 1),
        **{k: float(v) for k, v in metrics.items() if k in ("mIoU", "aAcc")},
        "params_m": sum(p.numel() for p in model.parameters()) / 1e6,
        "gmacs": energy.total["macs"] / 1e9,
        **({"firing_rate": 100 * energy.firing_rate} if energy.neurons else {}),
        "energy_mj": energy.total["energy_mj"],
        "ann_energy_mj": energy.total["ann_energy_mj"],
        "images_per_s": speed,
        "peak_mib": peak,
        **{k: v for k, v in metrics.items() if k.startswith("IoU.") and not math.isnan(v)},
    }


def describe(dataset: Any) -> str:
    """The name of a data set: its class, or where it lies if the class says nothing."""
    name = type(dataset).__name__.removesuffix("Dataset")
    return Path(dataset.data_root).name if name == "BaseSeg" else name


@torch.no_grad()
def time_images(model: nn.Module, batches: Iterable[dict]) -> float:
    """Time a model image by image, preparation and enlarging of its output included.

    Returns:
        Images per second, the median's.
    """
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        model.test_step(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    seconds = sorted(seconds[2:] or seconds)
    return 1 / seconds[len(seconds) // 2]


def peak_memory() -> float:
    """The most memory held so far, in MiB: of tensors on the GPU, else of the whole process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
