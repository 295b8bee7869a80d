"""What the checks find, and words that they share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mmengine.logging import print_log


class Report:
    """Collects problems, which end the run, and warnings, which are logged at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.compared: set[tuple[str, ...]] = set()
        """Classes that the heads were compared with."""
        self.folders: dict[str, tuple[str, ...]] = {}
        """Folders of classes, by the key of their data set."""

    def problem(self, where: str, what: str, cure: str) -> None:
        """Note what makes a run pointless.

        Args:
            where: Key of the config, or the file.
            what: What is wrong there.
            cure: What to do about it.
        """
        line = f"{where}: {what}; {cure}"
        if line not in self.problems:
            self.problems.append(line)

    def warn(self, where: str, what: str) -> None:
        """Log what may be meant."""
        print_log(f"preflight: {where}: {what}", "current", logging.WARNING)

    def skip(self, where: str, why: str) -> None:
        """Log what was not checked."""
        print_log(f"preflight: {where}: not checked, {why}", "current", logging.INFO)

    def attempt(self, where: str, check: Callable[..., Any], *args: Any) -> Any:
        """Run a check; an exception of its own, as on strange data, never ends the run.

        Args:
            where: What is checked: a key, or some words.
            check: The check.
            *args: Its arguments before the last one, which is this report.

        Returns:
            What the check returns; ``None`` if it raised, which is logged.
        """
        try:
            return check(*args, self)
        except Exception as error:  # refusals are no Exception but SystemExit
            name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
            why = f"since {name} ended in {type(error).__name__}: {error}"
            line = f"preflight: {where}: not checked, {why}"
            print_log(line, "current", logging.WARNING)
            return None

    def end_if_any(self) -> None:
        """End the program if there are problems.

        Raises:
            SystemExit: With a line for each.
        """
        if self.problems:
            found = "a problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
            lines = "\n".join(f"- {line}" for line in self.problems)
            raise SystemExit(f"preflight: {found} (--no-preflight goes on all the same)\n{lines}")


def counted(items: Sequence[Any], what: str, plural: str) -> str:
    """How many items there are, and some of them: ``2 classes (a, b)``."""
    return f"{len(items)} {what if len(items) == 1 else plural} ({listed(items)})"


def listed(items: Iterable[Any], most: int = 6) -> str:
    """Some items in words, and how many more there are."""
    items = [str(item) for item in items]
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """Up to ``most`` items, evenly over the sequence."""
    count = min(most, len(items))
    return [items[i * (len(items) - 1) // max(count - 1, 1)] for i in range(count)]
