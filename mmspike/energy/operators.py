"""The operators that are counted, in a table, and how many operations each takes.

MACs come from torch's own table (``torch.utils.flop_counter``). spikingjelly's ``op_counter`` is
right on spikes in single convolutions and products, and tested against, but does not do here: it
takes whatever consists of zeros and ones for spikes (a silent real-valued map too) and nothing else
(not integers, not spikes averaged over time), has one number for all time steps, counts RepConv as
three layers of which two read real values, and leaves out borders always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, flop_registry

from mmspike.energy.provenance import Provenance, Tracker, sum_per_step
from mmspike.layers.conv_shape import ConvShape
from mmspike.neurons import count_of

aten = torch.ops.aten

OPERANDS: dict[Any, tuple[int, ...]] = {
    aten.convolution: (0,),
    aten.mm: (0, 1),
    aten.addmm: (1, 2),
    aten.bmm: (0, 1),
    aten.baddbmm: (1, 2),
}
"""Which arguments of an operator may be spikes. Others of torch's table read real values."""


@dataclass
class OpCount:
    """What one call of an operator takes.

    Attributes:
        kind: What it is: ``conv``, ``dwconv``, ``deconv``, ``linear``, ``matmul`` ...
        macs: Multiply-accumulates of the call on real values, all time steps in it.
        time_steps: Steps T that the call goes through (1 where it reads averages).
        spikes: Spikes among the inputs per step; ``None`` where it reads real values.
        inputs: Number of inputs per step.
        synops: Additions per step; ``None`` where it reads real values.
    """

    kind: str
    macs: float
    time_steps: int
    spikes: list[float] | None = None
    inputs: float = 0.0
    synops: list[float] | None = None


def count_operator(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor, known: Tracker, exact: bool
) -> OpCount | None:
    """Count one call of an operator; ``None`` if it is none that costs.

    Args:
        func: The operator, of torch's.
        args: Its arguments.
        kwargs: Its named arguments.
        out: Its result.
        known: What is known of tensors.
        exact: Whether borders are counted as they are.
    """
    op = func.overloadpacket
    if op not in flop_registry or not isinstance(out, Tensor):  # backward passes give several
        return None
    if op is aten.convolution:
        weight, stride, padding, dilation, transposed = args[1].shape, *args[3:7]
        shape = ConvShape(weight, stride, padding, dilation, transposed, args[8])
        return count_convolution(args[0], shape, out.shape, known[args[0]], exact)
    macs = flop_registry[op](*args, **kwargs, out_val=out) / 2
    operands = [args[i] for i in OPERANDS.get(op, ())]
    origins = [known[x] for x in operands]
    kinds = {aten.mm: "linear", aten.addmm: "linear", aten.bmm: "matmul", aten.baddbmm: "matmul"}
    kind = kinds.get(op, str(op).removeprefix("aten."))
    spiking = [(x, p) for x, p in zip(operands, origins, strict=True) if p and p.is_spikes]
    if not spiking:
        return OpCount(kind, macs, max([p.time_steps for p in origins if p] or [1]))
    if len(spiking) == 2:
        return _count_coincidences(kind, macs, spiking)
    return _count_gated(kind, macs, *spiking[0])


def count_convolution(
    x: Tensor, shape: ConvShape, out_shape: Sequence[int], p: Provenance | None, exact: bool
) -> OpCount:
    """Count one call of a convolution.

    Args:
        x: Its input, ``[N, C, ...]``.
        shape: Its weights and geometry.
        out_shape: Shape of its result.
        p: What is known of ``x``.
        exact: Whether borders are counted as they are.
    """
    kind = "deconv" if shape.transposed else "conv" if shape.stride else "linear"
    if shape.groups > 1 and shape.groups == x.size(1):
        kind = "dw" + kind
    if not exact:
        macs = conv_flop_count(x.shape, shape.weight, out_shape, shape.transposed) / 2
        if p is None or not p.is_spikes:
            return OpCount(kind, macs, p.time_steps if p else 1)
        return _count_gated(kind, macs, x, p)
    reach = fan_out(shape, x.shape[2:], out_shape[2:])
    out_channels = shape.weight[1] if shape.transposed else shape.weight[0] // shape.groups
    macs = x.size(0) * x.size(1) * prod(r.sum().item() for r in reach) * out_channels
    if p is None or not p.is_spikes:
        return OpCount(kind, macs, p.time_steps if p else 1)
    count = _count_gated(kind, macs, x, p)
    weighted = count_of(x, p.unit).float()
    for axis, r in enumerate(reach):  # small whole numbers, exact in float32
        weighted = weighted * r.to(x.device).view(-1, *[1] * (len(reach) - axis - 1))
    synops = [out_channels * s for s in sum_per_step(weighted, replace(p, unit=1.0))]
    if p.is_averaged:  # the steps are known by their share alone, their sum exactly
        total, spikes = round(sum(synops)), count.spikes or []
        synops = [total * s / (sum(spikes) or 1) for s in spikes]
    count.synops = synops
    return count


def fan_out(shape: ConvShape, size: Sequence[int], out_size: Sequence[int]) -> list[Tensor]:
    """How many outputs an input reaches along each axis of a convolution, by its place.

    Args:
        shape: The convolution.
        size: Size of the input.
        out_size: Size of the output.

    Returns:
        Per axis a vector of the input's size, float32.
    """
    reaches = []
    for axis, (n, n_out) in enumerate(zip(size, out_size, strict=True)):
        k = shape.weight[2 + axis]
        s, p, d = (g[axis % len(g)] for g in (shape.stride, shape.padding, shape.dilation))
        here, tap = torch.arange(n).view(-1, 1), d * torch.arange(k)
        if shape.transposed:
            there = here * s - p + tap
            ok = (there >= 0) & (there < n_out)
        else:
            there = here + p - tap  # s times the output's place
            ok = (there % s == 0) & (there >= 0) & (there < n_out * s)
        reaches.append(ok.sum(1).float())
    return reaches


def _count_gated(kind: str, macs: float, x: Tensor, p: Provenance) -> OpCount:
    """Weights that are added where ``x`` has spikes."""
    spikes, inputs = p.count_spikes(x), x.numel()
    steps = p.time_steps
    if not p.is_averaged:
        inputs /= steps
        per_step = macs / steps
        synops = [s * (per_step / inputs) if inputs else 0.0 for s in spikes]
        return OpCount(kind, macs, steps, spikes, inputs, synops)
    synops = [s * (macs / inputs) if inputs else 0.0 for s in spikes]
    return OpCount(kind, macs, 1, spikes, inputs, synops)


def _count_coincidences(
    kind: str, macs: float, spiking: list[tuple[Tensor, Provenance]]
) -> OpCount:
    """Products of spikes ``[.., M, K]`` with spikes ``[.., K, N]``: additions where both are.

    Integers count as the product of their values.
    """
    (a, p), (b, q) = spiking
    if p.is_averaged or q.is_averaged:  # no longer spikes that are there or not
        return OpCount(kind, macs, 1)
    steps = max(p.time_steps, q.time_steps)
    both = count_of(a, p.unit).float().sum(-2) * count_of(b, q.unit).float().sum(-1)  # [.., K]
    in_batch = both.dim() > 1 and p.time_axis == q.time_axis == 0
    synops = sum_per_step(both, Provenance(steps, time_axis=0 if in_batch else None))
    return OpCount(kind, macs, steps, synops, macs / steps, synops)
