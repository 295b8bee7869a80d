"""Training steps through mmengine's Runner, data loading included, plain and ours."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from plain_baseline import make_eager
from torch import nn

import mmspike.registry  # noqa: F401  makes "mmseg::" known in configs
from mmspike import fused
from mmspike.datasets.shapes import ShapesSettings, write_shapes

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = ("circle", "square", "triangle")
BATCH, WARMUP, MEASURED = 8, 6, 12
TINY_ARCH = {"embed_dims": [16, 16, 24, 32], "num_heads": 4, "depths": (1, 0, 0, 1, 0)}


def make_plain(model: nn.Module) -> nn.Module:
    """:func:`make_eager`, with weights laid out in memory as torch has them by default."""
    make_eager(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model


@contextmanager
def plainly() -> Iterator[None]:
    """Run models without fast paths, on images laid out as torch has them by default."""
    with fused.disabled(), mock.patch.object(fused, "in_fastest_format", lambda img: img):
        yield


class Stopwatch(Hook):
    """Times iterations and the waiting for data, and changes the model before.

    Args:
        change: Called on the model before the training.
        plain: Whether it runs plainly.
        device: Where it runs.
    """

    priority = "LOWEST"

    def __init__(self, change: Callable[[nn.Module], object], plain: bool, device: str) -> None:
        self.change, self.plain, self.device = change, plain, device
        self.steps: list[float] = []
        self.waits: list[float] = []
        self.losses: list[float] = []
        self.mib: float | None = None

    def before_train(self, runner: Runner) -> None:
        """Change the model."""
        self.change(runner.model)
        self.stack = ExitStack()
        if self.plain:
            self.stack.enter_context(plainly())
        self.last = time.perf_counter()

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Note how long the data took."""
        self.waits.append(time.perf_counter() - self.last)
        if self.device == "cuda" and runner.iter == 0:
            torch.cuda.reset_peak_memory_stats()

    def after_train_iter(
        self, runner: Runner, *args: Any, outputs: Any = None, **kwargs: Any
    ) -> None:
        """Note how long the step took."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.steps.append(now - self.last)
        self.last = now
        self.losses.append(float(outputs["loss"].detach()))

    def after_train(self, runner: Runner) -> None:
        """Leave plain mode."""
        self.stack.close()
        if self.device == "cuda":
            self.mib = torch.cuda.max_memory_allocated() / 2**20


def train_through_the_runner(
    bench: Any, section: str, config: str, all_steps: tuple[int, ...]
) -> None:
    """Time training steps of a config on generated shapes; plain, ours, and with CUDA graphs.

    Args:
        bench: Sizes and where to note what is measured.
        section: Name of the section.
        config: File under ``configs/``.
        all_steps: Each T.
    """
    size = 64 if bench.dry else bench.size[0]
    hooks = {"eager": [], "ours": [], "ours, CUDA graphs": [{"type": "mmspike.CudaGraphHook"}]}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "shapes"
        count = 2 if bench.dry else 4 * BATCH
        write_shapes(data, ShapesSettings(num_train=count, num_val=1, size=size, max_shapes=8))
        for steps in all_steps:
            for way, extra in hooks.items():
                with bench.guarded(section, f"{config}, {way}, T = {steps}"):
                    cfg = read_training(CONFIGS / config, data, size, bench.dry)
                    cfg.model.backbone.time_steps = steps
                    cfg.work_dir = str(Path(folder) / "run")
                    watch = _train(cfg, way, extra, bench)
                    row = {"T": steps, "way": way, **_summary(watch, bench.dry)}
                    bench.note(section, what=f"training step, {config}", **row)


def _train(cfg: Config, way: str, extra: list[dict[str, Any]], bench: Any) -> Stopwatch:
    cfg.custom_hooks = extra
    for key in list(DefaultScope._instance_dict):
        if key != "mmengine":
            del DefaultScope._instance_dict[key]
    runner = Runner.from_cfg(cfg)
    plain = way == "eager"
    watch = Stopwatch(make_plain if plain else lambda model: model, plain, bench.device)
    runner.register_hook(watch)
    runner.train()
    return watch


def _summary(watch: Stopwatch, dry: bool) -> dict[str, float]:
    first = 1 if dry else WARMUP
    row = {
        "ms": round(1e3 * median(watch.steps[first:]), 2),
        "waiting_ms": round(1e3 * median(watch.waits[first:]), 2),
        "loss": round(watch.losses[-1], 3),
    }
    return row if watch.mib is None else {**row, "mib": round(watch.mib)}


def read_training(path: Path, data: Path, size: int, dry: bool) -> Config:
    """A config's training on shapes, a few steps long, from scratch, without validations.

    Args:
        path: Config of Mask R-CNN or Semantic FPN.
        data: Folder of generated shapes.
        size: Their height and width.
        dry: Whether the model is tiny and runs on a CPU.
    """
    cfg = Config.fromfile(path)
    detects = "roi_head" in cfg.model
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.attn_init_size = (size, size)
    take_shapes = shapes_for_detector if detects else shapes_for_segmentor
    dataset = take_shapes(cfg, data, size)
    if dry:
        _make_tiny(cfg.model, detects)
    workers = 0 if dry else 8
    cfg.train_dataloader = {
        "batch_size": 1 if dry else BATCH,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": not dry,
        "sampler": {"type": "InfiniteSampler", "shuffle": True},
        "dataset": dataset,
    }
    cfg.train_cfg = {
        "type": "IterBasedTrainLoop",
        "max_iters": 5 if dry else WARMUP + MEASURED,
        "val_interval": 10**9,
    }
    cfg.param_scheduler = []
    for kind in ("val", "test"):
        cfg[f"{kind}_dataloader"] = cfg[f"{kind}_cfg"] = cfg[f"{kind}_evaluator"] = None
    cfg.default_hooks = {"logger": None, "checkpoint": None}
    cfg.log_level, cfg.log_processor = "WARNING", {"by_epoch": False}
    cfg.visualizer, cfg.randomness = None, {"seed": 0}
    if not dry:
        cfg.optim_wrapper |= {"type": "AmpOptimWrapper", "loss_scale": "dynamic"}
    return cfg


def _make_tiny(model: Any, detects: bool) -> None:
    model.backbone.arch = TINY_ARCH
    model.neck.in_channels = [16, 16, 24, 32] if detects else [8, 16, 16, 32]
    if not detects:
        return
    width = 16
    model.neck.out_channels = width
    model.rpn_head.in_channels = model.rpn_head.feat_channels = width
    for part in ("bbox_roi_extractor", "mask_roi_extractor"):
        model.roi_head[part].out_channels = width
    model.roi_head.bbox_head.in_channels = model.roi_head.mask_head.in_channels = width
    model.roi_head.bbox_head.fc_out_channels = model.roi_head.mask_head.conv_out_channels = width
    model.train_cfg.rpn_proposal.update(nms_pre=32, max_per_img=32)
    model.train_cfg.rcnn.sampler.num = 16


def shapes_for_detector(cfg: Config, data: Path, size: int) -> dict[str, Any]:
    """Let a COCO config detect generated shapes; returns the data set."""
    for name in ("bbox_head", "mask_head"):
        cfg.model.roi_head[name].num_classes = len(CLASSES)
    return {
        "type": "CocoDataset",
        "data_root": f"{data}/",
        "ann_file": "annotations/train.json",
        "data_prefix": {"img": "train/"},
        "metainfo": {"classes": CLASSES},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
            {"type": "Resize", "scale": (size, size), "keep_ratio": True},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackDetInputs"},
        ],
    }


def shapes_for_segmentor(cfg: Config, data: Path, size: int) -> dict[str, Any]:
    """Let an ADE20K config segment generated shapes; returns the data set."""
    cfg.model.data_preprocessor.size = (size, size)
    cfg.model.decode_head.num_classes = 1 + len(CLASSES)
    return {
        "type": "BaseSegDataset",
        "data_root": str(data),
        "data_prefix": {"img_path": "train", "seg_map_path": "semseg/train"},
        "img_suffix": ".png",
        "metainfo": {"classes": ("background", *CLASSES)},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackSegInputs"},
        ],
    }
