"""Lets a process remember what the hosts would work out anew for every config.

Those are mmengine's reading of the hosts' lists of configs, which it does for each inherited one,
and its formatting of a config as text, which it does five times a training. Results are the same.
Imported by tests, and in the process that those of tools are forked from.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import utils
from yapf.yapflib import yapf_api

_load, _format = functools.cache(utils.load), yapf_api.FormatCode
_texts: dict[str, tuple[str, bool]] = {}


def _format_once(text: str, **options: Any) -> tuple[str, bool]:
    """Format as yapf does, which mmengine always calls with the same options."""
    key = f"{options}\n{text}"
    if key not in _texts:
        _texts[key] = _format(text, **options)
    return _texts[key]


def _read_lists(package: str) -> None:
    """Read a host's lists of configs, which processes forked from this one then have."""
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:  # made absent by a test
        spec = None
    folder = Path(spec.origin).parent / ".mim" if spec else None
    if folder and (folder / "model-index.yml").is_file():
        for name in _load(str(folder / "model-index.yml"))["Import"]:
            _load(str(folder / name))


utils.load, yapf_api.FormatCode = _load, _format_once
for _package in ("mmdet", "mmseg", "mmpretrain"):
    _read_lists(_package)
