"""What a model logs of its initialisation: one line, instead of one for every parameter."""

from __future__ import annotations

import logging

from mmengine.dist import master_only
from mmengine.logging import MMLogger
from mmengine.model import BaseModule


class InitLog(BaseModule):
    """A module of mmengine's that logs in one line what ``init_weights`` initialised.

    With ``log_level="DEBUG"``, mmengine's list of all parameters follows.
    """

    @master_only
    def _dump_init_info(self) -> None:
        """Log; ``BaseModule.init_weights`` calls this at its end, of the outermost module alone."""
        logger = MMLogger.get_current_instance()
        sizes = [p.numel() for p in self.parameters()]
        logger.info(
            f"initialised {type(self).__name__}: {len(sizes)} parameters, {sum(sizes):,} numbers"
        )
        if any(handler.level <= logging.DEBUG for handler in logger.handlers):
            super()._dump_init_info()
