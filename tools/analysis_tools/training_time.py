"""How long a training took, from its log."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

_LINE = re.compile(r"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - mmengine - \w+ - (.*)")


def training_minutes(work_dir: Path) -> float | None:
    """Wall-clock time of a training, its start and its validations included, in minutes.

    A training that was stopped and resumed has a log for each of its runs. All but the last count
    up to their last checkpoint: what came after it was done again.

    Args:
        work_dir: Its folder, with a log of mmengine's for every run.

    Returns:
        Minutes, to the second; ``None`` if there is no log.
    """
    logs = sorted(work_dir.glob("*/*.log"))  # named after their time
    minutes = [_minutes(log, whole=log == logs[-1]) for log in logs]
    known = [m for m in minutes if m is not None]
    return sum(known) if known else None


def _minutes(log: Path, whole: bool) -> float | None:
    """Minutes from the first line of a log to its last, or to that of the last checkpoint."""
    lines = [m.groups() for m in map(_LINE.match, log.read_text().splitlines()) if m]
    saved = (i for i in range(len(lines) - 1, -1, -1) if "Saving checkpoint" in lines[i][1])
    last = len(lines) - 1 if whole else next(saved, 0)
    if not lines:
        return None
    first, end = (datetime.strptime(lines[i][0], "%Y/%m/%d %H:%M:%S") for i in (0, last))
    return (end - first).total_seconds() / 60
