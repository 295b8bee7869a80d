"""Lets a training that was killed go on as if it had not been."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmspike.engine.distributed import share_buffers
from mmspike.engine.seeded_batches import SeededBatches, seed_batches, seed_everything
from mmspike.registry import HOOKS

KEY = "exact_resume"
"""Where a checkpoint holds what this hook needs of it."""


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a resumed training end with the bits of one that never stopped.

    mmengine restores weights, optimizer, schedule and history. This hook adds all random numbers:
    those of the data (:mod:`mmspike.engine.seeded_batches`) and those of each training step are
    drawn from the run's seed and the number of the iteration. They are the same whatever was drawn
    before, by a validation or by an interrupted run. The order of the data goes on from the batch
    that comes next, also in the middle of an epoch, and without a seed in the config.

    Limits: kernels that are not deterministic (see ``randomness=dict(deterministic=True)``),
    transforms that keep images from call to call (mmdet's cached mosaic), a checkpoint between two
    steps of accumulated gradients. A warning tells when another number of processes, batch size or
    version of torch goes on.

    Examples:
        ``custom_hooks = [dict(type="mmspike.ExactResumeHook")]`` in a config; ``tools/train.py``
        adds it.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._saved: dict | None = None
        self._batches: SeededBatches | None = None
        self._done = 0  # batches of the first epoch that a resumed run has done already

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what the checkpoint holds for this hook."""
        self._saved = checkpoint.get(KEY)

    def before_train(self, runner: Runner) -> None:
        """Number the batches, and begin with the one that comes next."""
        loop = runner.train_loop
        self._batches = seed_batches(loop.dataloader, runner.seed)
        if self._batches is None:
            runner.logger.warning(
                "ExactResumeHook: the training's data loader has no batches of indices; its random "
                "numbers cannot be repeated, and a resumed run will differ"
            )
            return
        if runner.iter == 0:
            return
        if not isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop):
            runner.logger.warning(
                f"ExactResumeHook: how a {type(loop).__name__} goes on is not known; the run may "
                "differ from one that never stopped"
            )
        elif isinstance(loop, EpochBasedTrainLoop):
            self._done = self._batches_done(runner)
            self._batches.first = runner.epoch * len(loop.dataloader) + self._done
        else:
            self._skip(runner, self._batches)
        self._restore(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Count the batches of an epoch from where they stand."""
        loop = runner.train_loop
        if self._batches is None or not isinstance(loop, EpochBasedTrainLoop):
            return
        self._batches.number = runner.epoch * len(loop.dataloader)
        if self._done:
            done, self._done = self._done, 0
            run_iter = loop.run_iter
            loop.run_iter = lambda index, batch: run_iter(index + done, batch)

    def after_train_epoch(self, runner: Runner) -> None:
        """Let the next epoch count its batches from zero."""
        vars(runner.train_loop).pop("run_iter", None)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the model draws in this step."""
        seed_everything(runner.seed, runner.iter, 0)

    def before_val(self, runner: Runner) -> None:
        """Have all processes evaluate what rank 0 saves."""
        share_buffers(runner.model)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add to the checkpoint what a resumed run needs."""
        loader = runner.train_loop.dataloader
        checkpoint[KEY] = _describe(loader)
        counts = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
        if counts > 1 and runner.optim_wrapper._inner_count % counts:
            runner.logger.warning(
                f"ExactResumeHook: a checkpoint between two steps of the optimizer, which adds up "
                f"{counts} iterations: the gradients so far are not in it. Save every multiple of "
                f"{counts} iterations"
            )

    def _skip(self, runner: Runner, batches: SeededBatches) -> None:
        """Leave out batches in the place of mmengine, which may load them, and numbers none."""
        iterator = runner.train_loop.dataloader_iterator
        sampler = _sampler(runner.train_loop.dataloader)

        def next_epoch() -> None:
            iterator._epoch += 1
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(iterator._epoch)

        batches.first = runner.iter
        batches.next_epoch = next_epoch
        iterator.skip_iter = lambda count: None

    def _batches_done(self, runner: Runner) -> int:
        length = len(runner.train_loop.dataloader)
        before = (self._saved or {}).get("batches_per_epoch", length)
        done = runner.iter - runner.epoch * before
        return done if before == length and 0 <= done <= length else 0

    def _restore(self, runner: Runner) -> None:
        if self._saved is None:
            runner.logger.warning(
                f"ExactResumeHook: the checkpoint holds no {KEY!r}; it was written without this "
                "hook, and the run goes on with other random numbers"
            )
            return
        now = _describe(runner.train_loop.dataloader)
        seed = self._saved.get("sampler_seed")
        sampler = _sampler(runner.train_loop.dataloader)
        if seed is not None and hasattr(sampler, "seed"):
            sampler.seed = seed
        changed = [
            f"{name} {now[name]} instead of {self._saved.get(name)}"
            for name in now
            if name != "sampler_seed" and now[name] != self._saved.get(name)
        ]
        if changed:
            runner.logger.warning(
                f"ExactResumeHook: the run goes on under other conditions than before, and will "
                f"not end with the same numbers: {', '.join(changed)}"
            )


def _sampler(loader: DataLoader) -> Any:
    return getattr(loader.batch_sampler, "sampler", loader.sampler)


def _describe(loader: DataLoader) -> dict[str, Any]:
    """What a run must have in common with the one that it goes on with."""
    return {
        "sampler_seed": getattr(_sampler(loader), "seed", None),
        "world_size": get_world_size(),
        "batch_size": getattr(loader.batch_sampler, "batch_size", loader.batch_size),
        "batches_per_epoch": len(loader),
        "torch": str(torch.__version__),
    }
