"""torchvision beside a torch for CPUs: the operators that its Python code asks for.

The wheel of torchvision is compiled for a torch with CUDA. Beside a torch for CPUs its compiled
part cannot be loaded, and then ``import torchvision`` ends, as it describes operators that nobody
has defined (``operator torchvision::nms does not exist``). mmpretrain and timm import torchvision
for its transforms, which are plain Python; mmdet and mmseg import mmpretrain and timm where they
are installed; mmengine wants its version.

``import mmspike`` therefore lets the first ``import torchvision`` define those operators before,
only where the compiled part cannot be loaded. Calling one is an error, as before. Hosts may be
imported first, or alone: ``tools/fit_torchvision.py``, which ``make install`` runs, writes a
startup file into the environment, where it is needed, with which every Python process of it does
the same. That runs this file alone; it imports what takes time only when it is needed.
"""

from __future__ import annotations

import sys

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""Operators that torchvision's Python code describes without asking whether they are there."""
STARTUP_FILE = "mmspike_torchvision.pth"
_STARTUP = (
    "import os; file = {file!r}; names = {{}}; os.path.isfile(file) and "
    '(exec(compile(open(file).read(), file, "exec"), names), names["watch_imports"]())\n'
)
_libraries: list[object] = []  # whose operators go when they do


class BeforeTorchvision:
    """A finder of modules that finds none, but is asked before torchvision is imported."""

    asked = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Define what is missing when torchvision is first looked for."""
        if name == "torchvision" and not self.asked:
            self.asked = True
            define_missing_operators()


def watch_imports() -> None:
    """Let the first import of torchvision call :func:`define_missing_operators` before."""
    known = {type(finder).__name__ for finder in sys.meta_path}  # of the startup file's, too
    if "torchvision" not in sys.modules and BeforeTorchvision.__name__ not in known:
        sys.meta_path.insert(0, BeforeTorchvision())


def define_missing_operators() -> bool:
    """Define the operators of :data:`SCHEMAS` if torchvision's compiled part cannot.

    Returns:
        Whether they were defined, now or before.
    """
    folder = _folder()
    if folder is None:
        return False
    import contextlib
    import os

    import torch

    if not _libraries:
        for name in os.listdir(folder):
            if name.startswith("_C.") and name.endswith(".so"):
                try:
                    torch.ops.load_library(os.path.join(folder, name))
                except OSError:
                    continue
                return False
        library = torch.library.Library("torchvision", "FRAGMENT")
        with contextlib.suppress(RuntimeError):  # the startup file was first
            for schema in SCHEMAS:
                library.define(schema)
        _libraries.append(library)
    return True


def write_startup_file() -> str | None:
    """Let every process of this environment call :func:`watch_imports`, where that is needed.

    Returns:
        The file, beside torchvision; ``None`` if torchvision is not installed, or its compiled part
        works.
    """
    import os

    folder = _folder()
    if folder is None or not define_missing_operators():
        return None
    file = os.path.join(os.path.dirname(folder), STARTUP_FILE)
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(_STARTUP.format(file=os.path.abspath(__file__)))
    return file


def _folder() -> str | None:
    """Where torchvision lies."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("torchvision")
    return next(iter(spec.submodule_search_locations or ()), None) if spec else None
