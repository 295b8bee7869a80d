"""Constructors of optimizer wrappers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
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

    ``paramwise_cfg`` may have one key more, ``lr_mults``: factors of the learning rate for parts of
    the model, ``dict(backbone=0.1, neck=2.0)``. A part is a module's full name; the longest one
    that holds a parameter counts. Unlike ``custom_keys``, they leave the rules about weight decay
    of norms and biases in force.

    Raises:
        ValueError: If ``lr_mults`` names a part that the model has not.
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
        names = {id(p): name for name, p in module.named_parameters()}
        scale = self.lr_scale(module)
        for group in params:
            factor = scale(names[id(group["params"][0])])
            if factor != 1.0:
                rate: Any = group.get("lr", self.base_lr)
                group["lr"] = rate * factor
        params[:] = _merge(params)
        for group in params:
            settings = {k: v for k, v in group.items() if k != "params"}
            logger.info(
                f"optimizer: {len(group['params'])} parameters with {settings or 'defaults'}"
            )
        frozen = [n.split(".")[:3] for n, p in module.named_parameters() if not p.requires_grad]
        if frozen:
            parts = Counter(map(".".join, frozen))
            logger.info(f"optimizer: {len(frozen)} parameters take no gradient: {dict(parts)}")

    def lr_scale(self, module: nn.Module) -> Callable[[str], float]:
        """The factor of the learning rate as a function of a parameter's name."""
        mults = self.paramwise_cfg.get("lr_mults", {})
        known = {name for name, _ in module.named_modules()}
        for part in mults:
            if part not in known:
                raise ValueError(
                    f"paramwise_cfg.lr_mults: the model has no part {part!r}; its parts are "
                    f"{[name for name, _ in module.named_children()]}"
                )

        def scale(name: str) -> float:
            parts = [part for part in mults if name.startswith(f"{part}.")]
            return mults[max(parts, key=len)] if parts else 1.0

        return scale


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(MergedGroupsConstructor):
    """Layer-wise decay of the learning rate: the deeper a backbone's layer, the closer to full.

    A parameter in layer ``i`` of ``n`` learns at ``layer_decay_rate ** (n - 1 - i)`` of the rate it
    would have otherwise. Layers are counted by the backbone (``get_layer_depth``): its first layer
    is 0, and the ``n - 1``-th is everything after it, at the full rate.

    Source: "ELECTRA" (arXiv 2003.10555), appendix A; "BEiT" (arXiv 2106.08254), section 3.

    ``paramwise_cfg`` needs ``layer_decay_rate``, in (0, 1], and may have all that
    :class:`MergedGroupsConstructor` takes.

    Raises:
        ValueError: If the rate is missing or out of range, or the backbone cannot count its layers.
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get("layer_decay_rate")
        if rate is None or not 0 < rate <= 1:
            raise ValueError(f"paramwise_cfg.layer_decay_rate must be in (0, 1], got {rate!r}")

    def lr_scale(self, module: nn.Module) -> Callable[[str], float]:
        """The factor of the learning rate as a function of a parameter's name."""
        of_part, rate = super().lr_scale(module), self.paramwise_cfg["layer_decay_rate"]
        backbone: Any = getattr(module, "backbone", None)
        if not hasattr(backbone, "get_layer_depth"):
            raise ValueError(
                f"LayerDecayConstructor: {type(backbone).__name__} has no get_layer_depth, which "
                "tells the layer that a parameter belongs to"
            )

        def scale(name: str) -> float:
            if not name.startswith("backbone."):
                return of_part(name)
            depth, num_layers = backbone.get_layer_depth(name, "backbone.")
            return of_part(name) * rate ** (num_layers - 1 - depth)

        return scale


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
    logger.addFilter(_is_not_about_a_frozen_one)
    try:
        yield
    finally:
        logger.removeFilter(_is_not_about_a_frozen_one)
        logger.setLevel(level)


def _is_not_about_a_frozen_one(record: logging.LogRecord) -> bool:
    """Whether a record is none of those, one per frozen parameter, that one line replaces."""
    return "skipped since its requires_grad" not in record.getMessage()
