"""torchvision beside a torch for CPUs: the operators that its Python code asks for.

The wheel of torchvision is compiled for a torch with CUDA. Beside a torch for CPUs its compiled
part cannot be loaded, and then ``import torchvision`` ends, as it describes operators that nobody
has defined (``operator torchvision::nms does not exist``). mmpretrain and timm import torchvision
for its transforms, which are plain Python, and mmengine for its version.

``import mmspike`` therefore lets the first ``import torchvision`` define those operators before,
only where the compiled part cannot be loaded. Calling one is an error, as before. Where torchvision
was imported earlier, or is not installed, nothing happens.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""Operators that torchvision's Python code describes without asking whether they are there."""
_defined: list[Any] = []  # libraries, whose operators go when they do


class _BeforeTorchvision(MetaPathFinder):
    """Finds nothing, but is asked before torchvision is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            define_missing_operators()
        return None


def watch_imports() -> None:
    """Let the first import of torchvision call :func:`define_missing_operators` before."""
    known = any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path)
    if "torchvision" not in sys.modules and not known:
        sys.meta_path.insert(0, _BeforeTorchvision())


def define_missing_operators() -> bool:
    """Define the operators of :data:`SCHEMAS` if torchvision's compiled part cannot.

    Returns:
        Whether they were defined.
    """
    spec = PathFinder.find_spec("torchvision")
    if spec is None or _defined:
        return False
    import torch

    for folder in spec.submodule_search_locations or ():
        for file in Path(folder).glob("_C*.so"):
            try:
                torch.ops.load_library(str(file))
            except OSError:
                continue
            return False
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _defined.append(library)
    return True
