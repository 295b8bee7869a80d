"""Time what FiniteHook adds to a training's iterations; prints a line."""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from datetime import date
from statistics import median
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmspike.engine.command_line import apply_options
from mmspike.engine.finite_hook import FiniteHook


def now() -> float:
    """Seconds, once the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@HOOKS.register_module()
class TimedFiniteHook(FiniteHook):
    """Keeps how long each iteration took, and the checks in it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[tuple[float, float]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check the inputs."""
        self._begin = now()
        super().before_train_iter(runner, batch_idx, data_batch)
        self._inputs, self._gradient_seconds = now() - self._begin, 0.0

    def measure_gradients(self, named: Any) -> None:
        """Measure the gradients."""
        start = now()
        super().measure_gradients(named)
        self._gradient_seconds += now() - start

    def after_train_iter(self, runner: Runner, batch_idx: int, **kwargs: Any) -> None:
        """Check all else."""
        start = now()
        super().after_train_iter(runner, batch_idx, **kwargs)
        checks = self._inputs + self._gradient_seconds + now() - start
        self.seconds.append((now() - self._begin, checks))


def main() -> None:
    """Train for some iterations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file, whose training data are there")
    parser.add_argument(
        "--iterations", type=int, default=30, help="iterations (30); 5 are left out"
    )
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    cfg = Config.fromfile(args.config)
    apply_options(cfg, args.cfg_options)
    cfg.update(custom_hooks=[{"type": "TimedFiniteHook"}], val_dataloader=None, val_cfg=None)
    cfg.update(val_evaluator=None, test_dataloader=None, test_cfg=None, test_evaluator=None)
    cfg.train_cfg = {"by_epoch": False, "max_iters": args.iterations}
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = Runner.from_cfg(cfg)
        runner.train()
    (hook,) = (h for h in runner.hooks if isinstance(h, TimedFiniteHook))
    steps, checks = (1e3 * median(column) for column in zip(*hook.seconds[5:], strict=True))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    weights = sum(p.numel() for p in runner.model.parameters())
    print(
        f"{date.today()}, {device}, {torch.get_num_threads()} CPU threads, torch "
        f"{torch.__version__}: {weights / 1e6:.1f} million weights, {steps:.0f} ms an iteration, "
        f"{checks:.1f} ms of it checks ({100 * checks / steps:.1f} %)"
    )


if __name__ == "__main__":
    main()
