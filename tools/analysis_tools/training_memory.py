"""Compute how much memory a training step of a backbone takes on a GPU, without a GPU.

A step on one image, of two sizes, runs on the CPU, on the paths that a GPU takes, while all tensors
are counted. What grows with the pixels is scaled to the crop. Weights, their gradients, AdamW's two
averages, and the weights in half precision come once ("once"). What cuDNN and the allocator take
for themselves comes on top.
"""

from __future__ import annotations

import argparse
import os
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmspike.archs import META_SPIKEFORMER
from mmspike.backbones import MetaSpikeFormer
from mmspike.fused import door, memory, reasons
from mmspike.fused.cuda.engine import CUDAEngine
from mmspike.fused.switch import CUDA_VARIABLE
from mmspike.neurons.kernels.triton import has_triton

SIZES = 384, 512
"""Pixels along the sides of the two images: large, or the peak is at the weights' gradients."""

MIB = 2**20


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["15M", "31M", "55M"], help="architectures")
    parser.add_argument("--time-steps", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--crop", nargs=2, type=int, default=[512, 512], metavar=("H", "W"))
    parser.add_argument("--float32", action="store_true", help="without autocast to halves")
    parser.add_argument(
        "--kernels", action="store_true", help=f"as with {CUDA_VARIABLE}=1; needs Triton"
    )
    args = parser.parse_args()
    if unknown := [name for name in args.models if name not in META_SPIKEFORMER]:
        parser.error(f"--models {' '.join(unknown)}: there are {', '.join(META_SPIKEFORMER)}")
    for name in ("time_steps", "crop"):
        if min(getattr(args, name)) < 1:
            parser.error(f"--{name.replace('_', '-')} takes numbers from 1")
    return args


@contextmanager
def as_on_a_gpu(kernels: bool) -> Iterator[None]:
    """Take the paths of a GPU on a CPU; its kernels allocate, but do not run."""
    with ExitStack() as stack:

        def put(where: object, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(where, name, value))

        engines = (CUDAEngine("cpu"), memory.ByteEngine()) if kernels else (memory.ByteEngine(),)
        put(door, "ENGINES", engines)
        put(memory, "is_channels_last_device", lambda _: True)
        put(reasons, "_get_current_dispatch_mode", lambda: None)  # the watch is one
        if kernels:
            from mmspike.neurons.kernels.triton_launch import Launch

            put(Launch, "__call__", lambda *_: None)
            stack.enter_context(mock.patch.dict(os.environ, {CUDA_VARIABLE: "1"}))
        yield


class PeakWatch(TorchDispatchMode):
    """Adds up the bytes of all tensors that operators read and write.

    torch's ``MemTracker`` hangs hooks on modules, which the kernels leave alone.

    Attributes:
        peak: The most that there were at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See torch."""
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves((args, out)):
            if isinstance(x, Tensor):
                self._count(x.untyped_storage())
        return out

    def _count(self, storage: UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def peak(model: str, time_steps: int, size: int, half: bool) -> tuple[int, int]:
    """Bytes at the peak of a training step on one image, and of the parameters."""
    torch.manual_seed(0)
    net = MetaSpikeFormer(model, time_steps=time_steps, attn_init_size=(size, size)).train()
    image = torch.randn(1, 3, size, size)
    watch = PeakWatch()
    with watch:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = sum(y.float().square().mean() for y in net(image))
        loss.backward()
    return watch.peak, sum(4 * p.numel() for p in net.parameters())


def main() -> None:
    """Print the table."""
    args = parse_args()
    if args.kernels and not has_triton():
        raise SystemExit("training_memory: --kernels needs Triton (pip install triton)")
    height, width = args.crop
    print(f"| model | T | MiB per image of {height} x {width} | once, MiB |")
    print("|---|---|---|---|")
    for model in args.models:
        for steps in args.time_steps:
            with as_on_a_gpu(args.kernels):
                peaks = [peak(model, steps, size, not args.float32) for size in SIZES]
            (small, parameters), (large, _) = peaks
            per_pixel = (large - small) / (SIZES[1] ** 2 - SIZES[0] ** 2)
            per_image = per_pixel * height * width / MIB
            once = (4 if args.float32 else 4.5) * parameters / MIB
            print(f"| {model} | {steps} | {per_image:.0f} | {once:.0f} |", flush=True)


if __name__ == "__main__":
    main()
