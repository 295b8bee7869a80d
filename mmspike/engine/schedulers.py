"""Schedules of the learning rate."""

from __future__ import annotations

from typing import Any

from mmengine.optim import LinearLR

from mmspike.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupLR(LinearLR):
    """Raise the learning rate from 0 at ``begin`` to its full value at ``end``.

    Step ``i`` after ``begin`` has ``lr * i / (end - begin)``, as timm and the published code warm
    up. mmengine's ``LinearLR`` cannot start at 0, and is at the full rate one step before ``end``.
    A scheduler for what follows begins at ``end``.

    Args:
        *args: The optimizer, or its wrapper.
        end: First step of the full rate.
        **kwargs: See mmengine: ``begin``, ``by_epoch``, ``convert_to_iter_based``.

    Examples:
        ``dict(type="mmspike.WarmupLR", by_epoch=True, begin=0, end=10,
        convert_to_iter_based=True)`` in a config: ten epochs, iteration by iteration.
    """

    def __init__(self, *args: Any, end: int, **kwargs: Any) -> None:
        super().__init__(*args, start_factor=0.0, end=end + 1, **kwargs)

    def _get_value(self) -> list[float]:
        return [full * self.last_step / self.total_iters for full in self.base_values]
