"""Constructors of optimizer wrappers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmspike.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedGroupsConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor with one parameter group per setting instead of one per parameter.

    Optimizers and schedulers work group by group, so that a network of 800 parameters spends more
    time between small kernels than in them unless parameters of equal settings share a group. The
    updates are the same, and the log tells a line per group.
    """

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", **kwargs: Any
    ) -> None:
        """Add the groups of a module, see mmengine; merge them once all are there."""
        if prefix:  # a part of the model, on the way down
            super().add_params(params, module, prefix, **kwargs)
            return
        logger = MMLogger.get_current_instance()
        with _only_warnings(logger):
            super().add_params(params, module, prefix, **kwargs)
        params[:] = _merge(params)
        for group in params:
            settings = {k: v for k, v in group.items() if k != "params"}
            logger.info(
                f"optimizer: {len(group['params'])} parameters with {settings or 'defaults'}"
            )


def _merge(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    merged: dict[tuple, dict[str, Any]] = {}
    for group in groups:
        settings = tuple(sorted((k, v) for k, v in group.items() if k != "params"))
        merged.setdefault(settings, {**group, "params": []})["params"].extend(group["params"])
    return list(merged.values())


@contextmanager
def _only_warnings(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
