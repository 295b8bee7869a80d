"""Which mmcv, and which host of classification, is installed; the commands that bring them.

mmcv's operators (RoIAlign, NMS ...) have to be compiled, for many minutes. Segmentation does
without: the distribution mmcv-lite is mmcv less the operators, and ready to install.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

DISTRIBUTIONS = ("onedl-mmcv", "mmcv", "mmcv-lite")
"""Those that bring the module ``mmcv``."""
FOR_SEGMENTATION = "pip install --no-deps mmcv-lite"
"""Brings mmcv without operators."""
FOR_DETECTION = (
    "pip uninstall -y mmcv-lite && "
    "MMCV_WITH_OPS=1 pip install --no-build-isolation ninja onedl-mmcv"
)
"""Compiles mmcv with its operators."""
CLASSIFICATION = ("mmpretrain", "timm", "torchvision")
"""Modules that classification needs."""
FOR_CLASSIFICATION = (
    "pip install --no-deps onedl-mmpretrain timm torchvision einops mat4py model-index ordered-set"
)
"""Brings them, and what they import; of their other dependencies, torchvision would bring CUDA."""


class MissingPackageError(ImportError):
    """A package is not installed, or not the variant of it that is needed."""


def mmcv_distribution() -> str:
    """Name and version of what brings mmcv, such as ``"onedl-mmcv 2.3.6"``; ``""`` for nothing."""
    for name in DISTRIBUTIONS:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


def has_operators() -> bool:
    """Whether there is an mmcv with compiled operators; they may still be of another torch."""
    return find_spec("mmcv") is not None and find_spec("mmcv._ext") is not None


def require_mmcv() -> None:
    """Check that there is an mmcv.

    Raises:
        MissingPackageError: If not; it names the commands.
    """
    if find_spec("mmcv") is None:
        raise MissingPackageError(
            f"mmspike needs mmcv, which is not installed: `{FOR_SEGMENTATION}` for segmentation, "
            f"or, compiled for some 12 minutes, for detection as well, `{FOR_DETECTION}` (in a "
            "clone of mmspike: `make install` or `make install-full`)",
            name="mmcv",
        )


def require_operators(what: str) -> None:
    """Check that there is an mmcv with compiled operators.

    Args:
        what: What needs them, as the error calls it.

    Raises:
        MissingPackageError: If not; it names what is installed and the command.
    """
    require_mmcv()
    if not has_operators():
        found = mmcv_distribution() or "the mmcv that is installed"
        raise MissingPackageError(
            f"{what} needs mmcv's compiled operators, which {found} has not: `make install-full` "
            f"in a clone of mmspike, or `{FOR_DETECTION}`, compiles them, for some 12 minutes on "
            "two cores; segmentation needs none",
            name="mmcv._ext",
        )


def require_mmpretrain() -> None:
    """Check that there is what classification needs.

    Raises:
        MissingPackageError: If not; it names the command.
    """
    require_mmcv()
    missing = [name for name in CLASSIFICATION if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"mmspike.cls, classification, needs {' and '.join(missing)}: `make install` in a "
            f"clone of mmspike, or `{FOR_CLASSIFICATION}`; detection and segmentation need none",
            name=missing[0],
        )
