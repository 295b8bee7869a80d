"""What a config inherits, and what lies near a name that is not there."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import get_installed_path

_NOT_THERE = (OSError, ValueError, AssertionError, ImportError)  # mmengine's, of a base


def wrong_base(path: str | Path) -> str | None:
    """Find the first base of a config, or of what it inherits, that cannot be read.

    Args:
        path: A config file whose reading has failed.

    Returns:
        A line that names the file, the base and the name that lies nearest; ``None`` if all bases
        are there, or the file is none.
    """
    if Path(path).suffix != ".py" or not Path(path).is_file():
        return None
    for base in Config._get_base_files(str(path)):
        found = _find(base, path)
        if found is None:
            return f'{path}: _base_ = "{base}" is not there{_advice(base, path)}'
        inner = wrong_base(found)
        if inner is not None:
            return inner
    return None


def _find(base: str, path: str | Path) -> str | None:
    """The file of a base; ``None`` if there is none."""
    try:
        found, _ = Config._get_cfg_path(base, str(path))
    except _NOT_THERE:
        return None
    return found if Path(found).is_file() else None


def _advice(base: str, path: str | Path) -> str:
    """What else to write, with the words that lead to it."""
    if "::" not in base:
        folder = (Path(path).parent / base).parent
        near = _nearest(Path(base).name, (p.name for p in folder.glob("*.py")))
        return f'; near it lies "{os.path.join(os.path.dirname(base), near)}"' if near else ""
    package, _, name = base.partition("::")
    if package not in MODULE2PACKAGE:
        near = _nearest(package, MODULE2PACKAGE)
        return f": mmengine knows no {package!r}" + (f", but {near!r}" if near else "")
    try:
        folder = Path(get_installed_path(MODULE2PACKAGE[package])) / ".mim/configs"
    except _NOT_THERE:
        return f": {package} is not installed"
    names = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*.py"))]
    near = _nearest(name, names)
    if near is not None and "/" not in near:
        near = f"_base_/../{near}"
    start = "" if "/" in name else f": mmengine finds {package}'s configs by FOLDER/NAME.py"
    return f'{start}; near it lies "{package}::{near}"' if near else start


def _nearest(name: str, names: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)), None)
