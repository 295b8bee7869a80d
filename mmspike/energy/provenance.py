"""What a tensor is made of, followed from the neurons on through every operation.

A neuron declares that its output is spikes. Whatever only moves them about leaves them spikes;
anything else makes real values. Nothing is guessed from values: a tensor of zeros and ones that no
neuron gave is real.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten

VIEWS = frozenset(
    {
        aten._reshape_alias,
        aten._to_copy,
        aten._unsafe_view,
        aten.alias,
        aten.clone,
        aten.detach,
        aten.expand,
        aten.permute,
        aten.reshape,
        aten.select,
        aten.slice,
        aten.squeeze,
        aten.t,
        aten.transpose,
        aten.unsqueeze,
        aten.view,
    }
)
"""Operations that keep the values; all of them where the number of elements stays."""
MOVES = frozenset(
    {
        aten.cat,
        aten.constant_pad_nd,
        aten._unsafe_index,
        aten.index,
        aten.index_select,
        aten.max_pool2d_with_indices,
        aten.repeat,
        aten.split,
        aten.split_with_sizes,
        aten.stack,
        aten.unbind,
        aten.upsample_nearest2d,
    }
)
"""Operations whose results consist of spikes where all their inputs do."""


@dataclass
class Sums:
    """Number of spikes in a tensor and in what only looks at it otherwise; filled when asked."""

    per_step: list[float] | None = None


@dataclass(frozen=True)
class Provenance:
    """What a tensor is made of.

    Attributes:
        time_steps: Steps T that the tensor, or what it is the average of, goes through.
        is_spikes: Whether its elements are spikes, or spikes averaged over time.
        is_averaged: Whether the steps were averaged.
        time_first: Whether the first axis is T, or T times something.
        sums: Number of spikes per step.
    """

    time_steps: int
    is_spikes: bool = False
    is_averaged: bool = False
    time_first: bool = True
    sums: Sums = field(default_factory=Sums)

    def count_spikes(self, x: Tensor) -> list[float]:
        """Count the spikes in ``x``, step by step.

        Returns:
            One number per step; spikes of integer neurons count as their value. Where the time axis
            was moved, each step gets the mean.
        """
        if self.sums.per_step is None:
            self.sums.per_step = sum_per_step(x, self)
        return self.sums.per_step


def sum_per_step(x: Tensor, p: Provenance) -> list[float]:
    """Sum a tensor's values step by step, exactly; see :meth:`Provenance.count_spikes`."""
    steps = p.time_steps
    if p.is_averaged or not p.time_first or x.size(0) % steps:
        total = exact_sum(x.reshape(1, -1))[0] * (steps if p.is_averaged else 1)
        return [total / steps] * steps
    return exact_sum(x.reshape(steps, -1))


def exact_sum(x: Tensor) -> list[float]:
    """Sum the rows of a matrix of whole numbers without rounding.

    Sums of 256 numbers of up to 2**16 are exact in float32, which is faster than float64 all along.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    rows, full = x.size(0), x.size(1) // 256 * 256
    total = x[:, full:].sum(1, dtype=torch.float64)
    if full:
        total += x[:, :full].reshape(rows, -1, 256).sum(2).sum(1, dtype=torch.float64)
    return total.tolist()


def tensors_in(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among an operator's arguments or results, those in lists included."""
    tensors = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += [x for x in value if isinstance(x, Tensor)]
    return tensors


class Tracker:
    """Follows provenance from tensor to tensor, without keeping any of them alive."""

    def __init__(self) -> None:
        self._known = WeakIdKeyDictionary()

    def __getitem__(self, x: Any) -> Provenance | None:
        return self._known.get(x) if isinstance(x, Tensor) else None

    def __setitem__(self, x: Tensor, provenance: Provenance | None) -> None:
        if provenance is None:
            self._known.pop(x, None)
        else:
            self._known[x] = provenance

    def follow(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        """Derive what the results of an operation are made of."""
        inputs = [
            x
            for x in tensors_in((*args, *kwargs.values()))
            if x.dtype not in (torch.int64, torch.bool) or self[x]
        ]
        known = [p for p in map(self.__getitem__, inputs) if p is not None]
        outputs = tensors_in((out,))
        if not known:
            for y in outputs:
                self[y] = None
            return
        for y in outputs:
            self[y] = _derive(func.overloadpacket, args, inputs, known, y)


def _derive(
    op: Any, args: Sequence[Any], inputs: list[Tensor], known: list[Provenance], out: Tensor
) -> Provenance | None:
    x, p = inputs[0], known[0]
    steps = max(1 if q.is_averaged else q.time_steps for q in known)
    real = real_values(steps)
    all_spikes = len(known) == len(inputs) and all(q.is_spikes for q in known)
    time_axis = p.time_steps > 1 and not p.is_averaged and p.time_first
    if op is aten.mean and time_axis and x.size(0) == p.time_steps and _is_first(args[1:2]):
        return replace(p, is_averaged=True) if all_spikes else None
    if op is aten.select and time_axis and args[1] == 0 and x.size(0) == p.time_steps:
        return Provenance(1, is_spikes=True) if all_spikes else None
    if op in VIEWS:
        moved = p.time_first and not _moves_first_axis(op, args, x.dim())
        if not all_spikes:
            return real if moved or real is None else replace(real, time_first=False)
        sums = p.sums if out.numel() == x.numel() else Sums()
        return replace(p, time_first=moved, sums=sums)
    pads_other = op is aten.constant_pad_nd and any(args[2:])
    if op in MOVES and all_spikes and not pads_other:
        return replace(p, sums=Sums())
    return real


@cache
def real_values(time_steps: int) -> Provenance | None:
    """What is known of real values that go through T steps."""
    return Provenance(time_steps) if time_steps > 1 else None  # one step: nothing to know


def _is_first(dims: Iterable[Any]) -> bool:
    return list(dims) in ([[0]], [(0,)], [0])


def _moves_first_axis(op: Any, args: Sequence[Any], dim: int) -> bool:
    if op is aten.transpose:
        return 0 in (args[1] % dim, args[2] % dim)
    if op is aten.permute:
        return args[1][0] % dim != 0
    return op is aten.t
