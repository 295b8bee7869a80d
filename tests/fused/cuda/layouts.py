"""Counts maps whose channels move from last to first in memory, or back."""

from __future__ import annotations

import traceback
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LAYERS = (
    torch.ops.aten.convolution.default,
    torch.ops.aten.convolution_backward.default,
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.native_batch_norm_backward.default,
    torch.ops.aten.native_group_norm.default,
)
"""What should find the channels last, or changes the layout itself, where nobody sees it."""


def is_map(x: Any) -> bool:
    """Whether it is ``[..., C, H, W]`` of several channels and pixels."""
    return isinstance(x, Tensor) and x.dim() in (4, 5) and x.size(-3) > 1 and x[0, 0, 0].numel() > 1


def channels_are_last(x: Tensor) -> bool | None:
    """Whether channels are next to one another, or pixels (``False``); ``None`` if neither."""
    if x.stride(-3) == 1:
        return True
    return False if 1 in (x.stride(-1), x.stride(-2)) else None


class Change(NamedTuple):
    """An operator that changes the layout of a map, and the function of ours that calls it."""

    operator: str
    shape: tuple[int, ...]
    where: str


class LayoutWatch(TorchDispatchMode):
    """Notes operators that change the layout of maps, or find the channels first.

    Attributes:
        changes: Those operators.
        seen: All layers that were looked at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Change] = []
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in LAYERS:
            self.seen.append(func)
            inputs = [x for x in args if is_map(x) and x.shape[-2:] != (1, 1)]
            if any(channels_are_last(x) is False for x in inputs[:1]):
                self._note(func, inputs[0])
        elif func is torch.ops.aten.copy_.default:
            self._compare(func, args[1], args[0])
        elif func in (torch.ops.aten.clone.default, torch.ops.aten._to_copy.default):
            self._compare(func, args[0], out)
        return out

    def _compare(self, func, x, out):
        if is_map(x) and is_map(out) and x.is_floating_point():
            before, after = channels_are_last(x), channels_are_last(out)
            if before is not None and after is not None and before != after:
                self._note(func, x)

    def _note(self, func, x):
        ours = [f for f in traceback.extract_stack() if "/mmspike/" in f.filename]
        where = ours[-1].name if ours else "backward"
        self.changes.append(Change(func.overloadpacket.__name__, tuple(x.shape), where))
