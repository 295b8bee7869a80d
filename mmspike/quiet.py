"""Messages of the hosts that nobody who runs them can act on: which these are, and their end.

Each is named with the module that it comes from. Others of these modules stay as they are.
"""

from __future__ import annotations

import logging
import warnings
from functools import wraps
from typing import Any

import mmengine.logging

_WARNINGS = {
    # It is an extra of mmdet's; a metric that needs it says so when it is built.
    "faster_coco_eval is not installed": "mmdet.evaluation.metrics.faster_coco_metric",
    # A default of mmseg's, which the published recipes have.
    "Default ``avg_non_ignore`` is False": "mmseg.models.losses.cross_entropy_loss",
    # A hook of mmseg's default runtime says that it does what its config says.
    "The draw is False": "mmseg.engine.hooks.visualization_hook",
    # Predictions reach over the border.
    "Warning: The (bbox|polygon) is out of bounds": "mmengine.visualization.visualizer",
}
"""Beginnings of warnings (regular expressions), and the modules that they come from."""
_LOGGED = (
    # mmengine's own checkpoint hook calls what mmengine deprecates.
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
    "The prefix is not set in metric class",  # a default of the hosts' metrics
    "The current default scope",  # a model of one host is built after one of another
)
"""Beginnings of lines that mmengine logs."""


def silence_hosts() -> None:
    """Leave out the warnings above, and what hosts print at the level of debugging.

    mmengine's ``print_log`` without a logger prints whatever the level is, such as that packages
    are absent which only the hosts' developers have.
    """
    for message, module in _WARNINGS.items():
        warnings.filterwarnings("ignore", message, module=module.replace(".", r"\.") + "$")
    print_log = mmengine.logging.print_log
    if getattr(print_log, "__wrapped__", None) is not None:  # a second call
        return

    @wraps(print_log)
    def at_its_level(msg: Any, logger: Any = None, level: int = logging.INFO) -> None:
        if logger is not None or level >= logging.INFO:
            print_log(msg, logger, level)

    mmengine.logging.print_log = at_its_level


def is_worth_reading(record: logging.LogRecord) -> bool:
    """Tell what to log; for ``Logger.addFilter``."""
    return not record.getMessage().startswith(_LOGGED)
