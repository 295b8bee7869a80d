"""Proves, on real inputs, that an unrolled model is its integer network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmspike.deploy.frame_layers import BinaryFrames
from mmspike.neurons import IntegerLIF, count_of

WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.modules.conv._ConvTransposeNd)


@dataclass
class UnrollCheck:
    """What :func:`check_unrolled` saw.

    Attributes:
        binary: Names of weight layers that were fed zeros and ones alone.
        real: Names of the others, in the order in which they ran; the first reads the image.
        moved: By the name of a neuron of the integer network, the share of its integers that
            differ in the unrolled one; 1 where the shapes differ (other RoIs).
    """

    binary: list[str] = field(default_factory=list)
    real: list[str] = field(default_factory=list)
    moved: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        """The largest share of integers of a neuron that differ."""
        return max(self.moved.values(), default=0.0)

    def __str__(self) -> str:
        """One line."""
        return (
            f"{len(self.binary)} weight layers read zeros and ones, {len(self.real)} others "
            f"({', '.join(self.real[:3])}{' ...' if len(self.real) > 3 else ''}); of the integers "
            f"of {len(self.moved)} neurons, up to {100 * self.worst:.4f} % differ"
        )


@torch.no_grad()
def check_unrolled(
    integer: nn.Module, unrolled: nn.Module, run: Callable[[nn.Module], object]
) -> UnrollCheck:
    """Run both, look at what every weight layer reads, and compare all integers.

    Args:
        integer: The network as it was trained, in evaluation mode.
        unrolled: A copy of it that :func:`mmspike.deploy.unroll` turned to frames.
        run: Runs a model on some inputs, the same for both.

    Raises:
        ValueError: If a neuron of the unrolled network is not in the integer one.
    """
    counts = _integers_of(integer, run)
    check = UnrollCheck()
    seen: dict[str, bool] = {}
    called: dict[str, list[Tensor]] = {}
    handles = []
    for name, module in unrolled.named_modules():
        if isinstance(module, WEIGHTS):
            handles.append(module.register_forward_pre_hook(_look(name, seen)))
        elif isinstance(module, BinaryFrames):
            handles.append(module.register_forward_hook(_collect(called)))
    try:
        run(unrolled)
    finally:
        for handle in handles:
            handle.remove()
    check.binary = [name for name, binary in seen.items() if binary]
    check.real = [name for name, binary in seen.items() if not binary]
    for name, theirs in called.items():
        if name not in counts:
            raise ValueError(f"check_unrolled: {name} is no neuron of the integer network")
        check.moved[name] = _share_that_differs(counts[name], theirs)
    return check


def _integers_of(model: nn.Module, run: Callable[[nn.Module], object]) -> dict[str, list[Tensor]]:
    counts: dict[str, list[Tensor]] = {}

    def hook_of(name: str) -> Callable:
        def keep(module: IntegerLIF, _: tuple, out: Tensor) -> None:
            integers = count_of(out, module.spike_unit).to(torch.uint8)
            counts.setdefault(name, []).append(integers.cpu())

        return keep

    handles = [
        module.register_forward_hook(hook_of(name))
        for name, module in model.named_modules()
        if isinstance(module, IntegerLIF)
    ]
    try:
        run(model)
    finally:
        for handle in handles:
            handle.remove()
    return counts


def _look(name: str, seen: dict[str, bool]) -> Callable:
    def look(module: nn.Module, args: tuple) -> None:
        binary = bool(((args[0] == 0) | (args[0] == 1)).all())
        seen[name] = seen.get(name, True) and binary

    return look


def _collect(called: dict[str, list[Tensor]]) -> Callable:
    def collect(module: BinaryFrames, _: tuple, frames: Tensor) -> None:
        integers = frames.unflatten(0, (-1, module.frames)).sum(1).to(torch.uint8).cpu()
        parts = integers.chunk(len(module.replaces), dim=2) if integers.dim() > 2 else [integers]
        for name, part in zip(module.replaces, parts, strict=True):
            called.setdefault(name, []).append(part)

    return collect


def _share_that_differs(ours: list[Tensor], theirs: list[Tensor]) -> float:
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        return 1.0
    total = sum(x.numel() for x in ours)
    return sum((a != b).sum().item() for a, b in zip(ours, theirs, strict=True)) / max(1, total)
