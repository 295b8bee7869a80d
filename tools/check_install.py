"""Say what is installed, whether mmcv's compiled ops work, and ours are there."""

from __future__ import annotations

import sys
from importlib import metadata

PACKAGES = (
    "torch",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmdetection",
    "onedl-mmsegmentation",
    "spikingjelly",
    "mmspike",
)


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


def main() -> None:
    """Print the versions and the state of the ops; fail if they are broken."""
    print(f"Python {sys.version.split()[0]}")
    for package in PACKAGES:
        try:
            print(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            print(f"{package} is not installed")
    import torch

    broken = False
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        state = check_ops(device)
        broken |= state != "work"
        print(f"mmcv's ops on {device}: {state}")
    from mmspike.native import library

    kernels = library.level() if library.is_available() else "not compiled: slower, in plain torch"
    print(f"mmspike's kernels on cpu: {kernels}")
    if broken:
        sys.exit(
            "mmcv was compiled for another torch; build it again:\n"
            "  pip cache remove onedl_mmcv && pip uninstall -y onedl-mmcv && "
            "MMCV_WITH_OPS=1 pip install --no-build-isolation onedl-mmcv"
        )


if __name__ == "__main__":
    main()
