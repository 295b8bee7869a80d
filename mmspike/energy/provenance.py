"""What a tensor is made of, followed from the neurons on through every operation.

A neuron declares that its output is spikes. Whatever only moves them about leaves them spikes;
anything else makes real values. Nothing is guessed from values: a tensor of zeros and ones that no
neuron gave is real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from mmspike.neurons import count_of

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
        aten._unsafe_index,
        aten.cat,
        aten.constant_pad_nd,
        aten.flip,
        aten.index,
        aten.index_select,
        aten.max_pool2d_with_indices,
        aten.reflection_pad2d,
        aten.repeat,
        aten.replication_pad2d,
        aten.roll,
        aten.split,
        aten.split_with_sizes,
        aten.stack,
        aten.unbind,
        aten.upsample_nearest2d,
    }
)
"""Operations whose results consist of spikes where all their inputs do."""
_INDICES = (torch.int64, torch.bool)
REDUCTIONS = frozenset({aten.mean, aten.sum})


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
        time_axis: The axis that is T, or T times something; ``None`` where there is none any more.
        sums: Number of spikes per step.
        unit: What a spike is worth.
    """

    time_steps: int
    is_spikes: bool = False
    is_averaged: bool = False
    time_axis: int | None = 0
    sums: Sums = field(default_factory=Sums)
    unit: float = 1.0

    def count_spikes(self, x: Tensor) -> list[float]:
        """Count the spikes in ``x``, step by step.

        Returns:
            One number per step; spikes of integer neurons count as their value. Where the time axis
            is lost, each step gets the mean.
        """
        if self.sums.per_step is not None:
            return self.sums.per_step
        counted = sum_per_step(x, self)
        if self.time_axis is not None:
            self.sums.per_step = counted
        return counted


def sum_per_step(x: Tensor, p: Provenance) -> list[float]:
    """Sum a tensor's spikes step by step, exactly; see :meth:`Provenance.count_spikes`."""
    steps, axis = p.time_steps, p.time_axis
    x = x / p.unit if p.is_averaged and p.unit != 1 else count_of(x, p.unit)
    if axis is None or x.size(axis) % steps:
        total = exact_sum(x.reshape(1, -1))[0] * (steps if p.is_averaged else 1)
        return [total / steps] * steps
    return exact_sum(x.movedim(axis, 0).reshape(steps, -1))


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
        if not isinstance(x, Tensor):
            return None
        provenance, version = self._known.get(x, (None, None))
        if provenance is not None and version != _version(x):  # written to, maybe through a view
            return real_values(provenance.time_steps, provenance.time_axis)
        return provenance

    def __setitem__(self, x: Tensor, provenance: Provenance | None) -> None:
        if provenance is None:
            self._known.pop(x, None)
        else:
            self._known[x] = (provenance, _version(x))

    def follow(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        """Derive what the results of an operation are made of."""
        inputs, known = [], []
        for x in tensors_in((*args, *kwargs.values()) if kwargs else args):
            p = self[x]
            if p is not None:
                known.append((x, p))
            if p is not None or x.dtype not in _INDICES:
                inputs.append(x)
        outputs = tensors_in((out,))
        if not known:
            for y in outputs:
                self._known.pop(y, None)
            return
        writes, views = _effects(func)
        if writes and outputs and outputs[0].is_inference():
            self._forget_memory_of(outputs[0])  # such tensors do not tell that they were written to
        for y in outputs:
            p = _derive(func.overloadpacket, args, len(known) == len(inputs), known, y)
            if p is None:
                self._known.pop(y, None)
            else:  # a view will count versions with its base
                self._known[y] = (p, _version(inputs[0] if views else y))

    def _forget_memory_of(self, x: Tensor) -> None:
        memory = x.untyped_storage().data_ptr()
        for y in list(self._known):
            if y is not None and y.untyped_storage().data_ptr() == memory:
                self[y] = None


@cache
def _effects(func: Any) -> tuple[bool, bool]:
    """Whether an operator writes to its arguments, and whether its result looks at their memory."""
    return func._schema.is_mutable, func.is_view


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version


@cache
def real_values(time_steps: int, time_axis: int | None = 0) -> Provenance | None:
    """What is known of real values that go through T steps."""
    return Provenance(time_steps, time_axis=time_axis) if time_steps > 1 else None


def _derive(
    op: Any,
    args: Sequence[Any],
    all_known: bool,
    known: list[tuple[Tensor, Provenance]],
    out: Tensor,
) -> Provenance | None:
    x, p = max(known, key=lambda pair: 1 if pair[1].is_averaged else pair[1].time_steps)
    spikes = all_known and all(q.is_spikes for _, q in known)
    alike = all(_kind(q) == _kind(p) for _, q in known)
    steps = 1 if p.is_averaged else p.time_steps
    if op in REDUCTIONS:
        return _reduce(op, args, x, p, spikes, out)
    if op in (aten.select, aten.unbind, aten.slice):
        dim = (args[1] if len(args) > 1 else 0) % x.dim()
        if dim == p.time_axis and (op is not aten.slice or out.shape != x.shape):
            left = out.size(dim) if op is aten.slice else 1
            whole = x.size(dim) == p.time_steps  # else T times something: the steps are mixed
            if spikes:
                return Provenance(left if whole else 1, True, unit=p.unit)
            return real_values(left)
    if op in VIEWS:
        axis = _axis_of_view(op, args, x, p, out)
        if not spikes:
            return real_values(steps, axis)
        return replace(p, time_axis=axis, sums=p.sums if out.numel() == x.numel() else Sums())
    axis = p.time_axis if _keeps_axis(op, args, x, p, out) else None
    moved = op in MOVES and not (op is aten.constant_pad_nd and any(args[2:]))
    moved = moved and not (p.is_averaged and op is aten.max_pool2d_with_indices)
    gated = op is aten.mul and len(known) == 2 and not p.is_averaged  # spikes where both are
    if spikes and alike and (moved or gated):
        if op is aten.stack and axis is not None:
            axis += (args[1] if len(args) > 1 else 0) % out.dim() <= axis
        return replace(p, time_axis=axis, sums=Sums(), unit=p.unit**2 if gated else p.unit)
    return real_values(steps, axis)


def _kind(p: Provenance) -> tuple[int, bool, int | None, float]:
    return p.time_steps, p.is_averaged, p.time_axis, p.unit


def _reduce(
    op: Any, args: Sequence[Any], x: Tensor, p: Provenance, spikes: bool, out: Tensor
) -> Provenance | None:
    """What a mean or a sum gives."""
    given = args[1] if len(args) > 1 and args[1] is not None else range(x.dim())
    dims = sorted(d % x.dim() for d in ([given] if isinstance(given, int) else given))
    keepdim = len(args) > 2 and args[2]
    steps = 1 if p.is_averaged else p.time_steps
    if spikes and out.numel() == x.numel():  # over axes of length 1
        lost = None if p.time_axis in dims and not keepdim else p.time_axis
        shift = 0 if lost is None or keepdim else sum(d < lost for d in dims)
        axis = 0 if lost is None and p.time_steps == 1 else lost and lost - shift
        return replace(p, time_axis=axis)
    if p.time_axis in dims and x.size(p.time_axis) == p.time_steps:
        if spikes and op is aten.mean and dims == [p.time_axis] and not p.is_averaged:
            return replace(p, is_averaged=True, time_axis=None)
        return None
    if p.time_axis is None or p.time_axis in dims:
        return real_values(steps, None)
    return real_values(steps, p.time_axis - (0 if keepdim else sum(d < p.time_axis for d in dims)))


def _axis_of_view(
    op: Any, args: Sequence[Any], x: Tensor, p: Provenance, out: Tensor
) -> int | None:
    """Where the time axis lies after a view."""
    axis, dim = p.time_axis, x.dim()
    if axis is None:
        return None
    if op is aten.t or op is aten.transpose:
        a, b = (d % dim for d in (args[1:3] if op is aten.transpose else (0, dim - 1)))
        return {a: b, b: a}.get(axis, axis)
    if op is aten.permute:
        return [d % dim for d in args[1]].index(axis)
    if op is aten.expand:
        return axis + out.dim() - dim
    if op is aten.unsqueeze:
        return axis + (args[1] % (dim + 1) <= axis)
    if op is aten.select:
        return axis - (args[1] % dim < axis)
    before = prod(x.shape[:axis])
    for i in range(out.dim()):  # T stays outermost in the axis that begins where it began
        if prod(out.shape[:i]) == before and out.size(i) % p.time_steps == 0:
            return i
    return None


def _keeps_axis(op: Any, args: Sequence[Any], x: Tensor, p: Provenance, out: Tensor) -> bool:
    """Whether the time axis of ``x`` is that of a result."""
    axis = p.time_axis
    if axis is None or axis >= out.dim():
        return False
    if op is aten.stack:
        return True
    if op in (aten.cat, aten.split, aten.split_with_sizes):
        position = 1 if op is aten.cat else 2
        dim = args[position] if len(args) > position else 0
        return dim % x.dim() != axis
    if op in (aten.index, aten._unsafe_index):
        return all(i is None for i in args[1][: axis + 1])
    if op in (aten.flip, aten.roll):
        return axis not in [d % x.dim() for d in args[1 if op is aten.flip else 2]]
    return out.size(axis) == x.size(axis)
