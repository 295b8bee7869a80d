"""What a model logs of its initialisation: one line, instead of one for every parameter."""

from __future__ import annotations

import logging
from functools import partial

from mmengine.dist import master_only
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from torch import nn


@master_only
def log_init(module: BaseModule) -> None:
    """Log in one line what ``init_weights`` initialised.

    With ``log_level="DEBUG"``, mmengine's list of all parameters follows.
    """
    logger = MMLogger.get_current_instance()
    sizes = [p.numel() for p in module.parameters()]
    logger.info(
        f"initialised {type(module).__name__}: {len(sizes)} parameters, {sum(sizes):,} numbers"
    )
    if any(handler.level <= logging.DEBUG for handler in logger.handlers):
        BaseModule._dump_init_info(module)


class InitLog(BaseModule):
    """A module of mmengine's that logs its initialisation by :func:`log_init`."""

    def _dump_init_info(self) -> None:
        """Log; ``BaseModule.init_weights`` calls this at its end, of the outermost module alone."""
        log_init(self)


def use_init_log(model: nn.Module) -> None:
    """Let a host's model log its initialisation by :func:`log_init`, too."""
    if isinstance(model, BaseModule) and not isinstance(model, InitLog):
        model._dump_init_info = partial(log_init, model)
