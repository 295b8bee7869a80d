"""Checks of types that Python takes as they are, and config files get wrong."""

from __future__ import annotations

from typing import Any


def check_config(name: str, value: Any, example: str = "mmspike.LIF") -> None:
    """Refuse what is neither a config nor ``None``.

    Args:
        name: The argument, with its owner.
        value: What was given.
        example: A type that such a config may name.

    Raises:
        TypeError: If it is neither; it names argument, expectation and value.
    """
    if value is not None and not isinstance(value, dict):
        kind = value if isinstance(value, str) else example
        raise TypeError(f"{name} must be a config such as dict(type={kind!r}), got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither ``True`` nor ``False``: any text, ``"no"`` too, would count as true.

    Args:
        name: The argument, with its owner.
        value: What was given.

    Raises:
        TypeError: If it is neither; it names argument and value.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
