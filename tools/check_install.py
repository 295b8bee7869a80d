"""Say what is installed, whether mmcv's operators and classification work, and ours are there."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata

from mmspike.installed import (
    FOR_DETECTION,
    MissingPackageError,
    has_operators,
    require_mmpretrain,
    require_operators,
)

PACKAGES = (
    "torch",
    "onedl-mmengine",
    "onedl-mmcv",
    "mmcv-lite",
    "onedl-mmdetection",
    "onedl-mmsegmentation",
    "onedl-mmpretrain",
    "timm",
    "torchvision",
    "spikingjelly",
    "mmspike",
)
EITHER = ("onedl-mmcv", "mmcv-lite")  # one of them is installed


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--operators",
        action="store_true",
        help="fail without mmcv's compiled operators, which detection needs, and segmentation not",
    )
    return parser.parse_args()


def check_ops(device: str) -> str:
    """Run RoIAlign and NMS on a device; say what came of it."""
    import torch

    try:
        from mmcv.ops import nms, roi_align

        boxes = torch.tensor([[0, 0, 8, 8], [0, 0, 8, 7]], dtype=torch.float32, device=device)
        _, kept = nms(boxes, torch.tensor([0.9, 0.8], device=device), 0.5)
        rois = torch.nn.functional.pad(boxes, (1, 0))
        pooled = roi_align(torch.ones(1, 1, 16, 16, device=device), rois, 2, 1.0, 2)
        ok = kept.tolist() == [0] and bool((pooled == 1).all())
    except Exception as error:  # whatever a broken build raises is the answer
        return f"broken: {type(error).__name__}: {error}"
    return "work" if ok else "broken: wrong results"


def print_versions() -> None:
    """Print the versions of the stack."""
    print(f"Python {sys.version.split()[0]}")
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    for package in PACKAGES:
        if package in versions:
            print(f"{package} {versions[package]}")
        elif package not in EITHER or versions.keys().isdisjoint(EITHER):
            print(f"{package} is not installed")
    if versions.keys() >= set(EITHER):
        print("onedl-mmcv and mmcv-lite are both installed, over one another: see below")


def check_operators(required: bool) -> str | None:
    """Say what state mmcv's operators are in.

    Args:
        required: Whether it is an error if there are none.

    Returns:
        What is wrong and the cure; ``None`` if nothing is.
    """
    import torch

    if not has_operators():
        try:
            require_operators("detection")
        except MissingPackageError as error:
            if required or error.name == "mmcv":
                return str(error)
            print(f"mmcv's ops: none, segmentation works; {error}")
        return None
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    states = {device: check_ops(device) for device in devices}
    for device, state in states.items():
        print(f"mmcv's ops on {device}: {state}")
    if set(states.values()) == {"work"}:
        return None
    return (
        "mmcv was compiled for another torch, or another mmcv was written over it; build it again:"
        f"\n  pip cache remove onedl_mmcv && pip uninstall -y onedl-mmcv && {FOR_DETECTION}"
    )


def check_classification() -> str:
    """Say whether what classification needs is there, and can be imported."""
    try:
        require_mmpretrain()
    except MissingPackageError as error:
        return f"none; {error}"
    try:
        import mmpretrain  # noqa: F401
        import torchvision  # noqa: F401
    except Exception as error:  # whatever a broken build raises is the answer
        return f"broken: {type(error).__name__}: {error}; try tools/fit_torchvision.py"
    return "works"


def main() -> None:
    """Print the versions and the state of the operators; fail if they are broken."""
    args = parse_args()
    print_versions()
    wrong = check_operators(args.operators)
    print(f"classification: {check_classification()}")
    from mmspike.native import library

    kernels = library.level() if library.is_available() else "not compiled: slower, in plain torch"
    print(f"mmspike's kernels on cpu: {kernels}")
    if wrong:
        sys.exit(wrong)


if __name__ == "__main__":
    main()
