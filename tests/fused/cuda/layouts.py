"""Counts maps whose channels move from last to first in memory, or back."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mmspike

PACKAGE = Path(mmspike.__file__).parent

aten = torch.ops.aten
LAYERS = {
    aten.convolution.default: 0,
    aten.convolution_backward.default: 0,
    aten.native_batch_norm.default: 0,
    aten.native_batch_norm_backward.default: 0,
    aten.cudnn_batch_norm.default: 0,
    aten.cudnn_batch_norm_backward.default: 1,
    aten.native_group_norm.default: 0,
}
"""What should find the channels last, or changes the layout itself, where nobody sees it; and which
of its arguments is looked at, the map or its gradient."""

NORMS_BACKWARD = ("native_batch_norm_backward", "cudnn_batch_norm_backward")
"""Of these, the ones that norms take on a CPU and on a GPU."""


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
            x = args[LAYERS[func]]
            if is_map(x) and x.shape[-2:] != (1, 1) and channels_are_last(x) is False:
                self._note(func, x)
        elif func is aten.copy_.default:
            self._compare(func, args[1], args[0])
        elif func in (aten.clone.default, aten._to_copy.default):
            self._compare(func, args[0], out)
        return out

    def _compare(self, func, x, out):
        if is_map(x) and is_map(out) and x.is_floating_point():
            before, after = channels_are_last(x), channels_are_last(out)
            if before is not None and after is not None and before != after:
                self._note(func, x)

    def _note(self, func, x):
        ours = [f for f in traceback.extract_stack() if PACKAGE in Path(f.filename).parents]
        where = ours[-1].name if ours else "backward"
        self.changes.append(Change(func.overloadpacket.__name__, tuple(x.shape), where))
