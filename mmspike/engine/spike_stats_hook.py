"""Watches the firing rates of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmspike.energy.firing_rate import FiringRateMonitor, NeuronRow
from mmspike.registry import HOOKS


@HOOKS.register_module()
class SpikeStatsHook(Hook):
    """Logs firing rates to the visualizer, and warns about layers that fell silent or saturate.

    Rates are those of one iteration in every ``interval``, over all processes. The visualizer gets
    ``firing_rate/<neuron>`` for every layer of neurons and ``firing_rate/mean``; the text log gets
    the mean. A warning names a layer once, until it recovers.

    Args:
        interval: Iterations from one look to the next.
        silent: A layer fires too rarely below this rate.
        saturated: A layer fires too often above this rate (spikes per neuron and step, divided by
            the neuron's levels).

    Raises:
        ValueError: If the interval is below 1, or the rates are not ``0 <= silent < saturated``.

    Examples:
        ``custom_hooks = [dict(type="mmspike.SpikeStatsHook", interval=100)]`` in a config.
    """

    def __init__(self, interval: int = 50, silent: float = 1e-3, saturated: float = 0.9) -> None:
        if interval < 1:
            raise ValueError(f"SpikeStatsHook: interval must be at least 1, got {interval}")
        if not 0 <= silent < saturated:
            raise ValueError(
                f"SpikeStatsHook: 0 <= silent < saturated, got {silent} and {saturated}"
            )
        self.interval = interval
        self.silent = silent
        self.saturated = saturated
        self._monitor: FiringRateMonitor | None = None
        self._warned: dict[str, set[str]] = {"silent": set(), "saturated": set()}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start counting, every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._monitor = FiringRateMonitor(_unwrapped(runner.model))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log what was counted."""
        if self._monitor is None:
            return
        self._monitor.close()
        rates = self._reduce(self._monitor.rows, _unwrapped(runner.model))
        self._monitor = None
        if not rates:
            return
        mean = sum(rates.values()) / len(rates)
        runner.message_hub.update_scalar("train/firing_rate", mean)
        scalars = {f"firing_rate/{name}": rate for name, rate in rates.items()}
        scalars["firing_rate/mean"] = mean
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        self._warn(runner, rates)

    def after_train(self, runner: Runner) -> None:
        """Leave no hook behind."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def _reduce(self, rows: Sequence[NeuronRow], model: torch.nn.Module) -> dict[str, float]:
        """Mean rate of every neuron that any process called, in units of its levels."""
        counts = torch.tensor(
            [[sum(row.spikes) / row.levels, row.outputs * row.time_steps] for row in rows],
            dtype=torch.float64,
        ).reshape(-1, 2)
        counts = counts.to(next(model.parameters()).device)
        all_reduce(counts, op="sum")
        return {
            row.name: fired / possible
            for row, (fired, possible) in zip(rows, counts.tolist(), strict=True)
            if possible
        }

    def _warn(self, runner: Runner, rates: dict[str, float]) -> None:
        found = {
            "silent": {n for n, r in rates.items() if r < self.silent},
            "saturated": {n for n, r in rates.items() if r > self.saturated},
        }
        limits = {"silent": f"below {self.silent:.2%}", "saturated": f"above {self.saturated:.0%}"}
        for state, names in found.items():
            new = [n for n in rates if n in names - self._warned[state]]
            self._warned[state] = names
            if new:
                listed = ", ".join(f"{n} ({rates[n]:.2%})" for n in new)
                runner.logger.warning(
                    f"iteration {runner.iter + 1}: layers of neurons {state}, firing rate "
                    f"{limits[state]}: {listed}"
                )


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    return model.module if is_model_wrapper(model) else model
