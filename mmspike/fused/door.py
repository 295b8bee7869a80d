"""The door: modules ask here, once per call, to be run fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from mmspike.fused.cpu.engine import CPUEngine
from mmspike.fused.cuda.engine import CUDAEngine
from mmspike.fused.memory import ByteEngine
from mmspike.fused.protocols import (
    Engine,
    Link,
    SpikingAttention,
    SpikingLayer,
    is_spiking_layer,
)
from mmspike.fused.switch import is_enabled
from mmspike.fused.watch import is_watched

ENGINES: tuple[Engine, ...] = (CPUEngine(), CUDAEngine(), ByteEngine())
"""In the order in which they are asked, those of other devices left out."""

Reasons = dict[nn.Module, str | None]
"""Weight layers that ran, and why they did not run fused; ``None`` if they did."""

_reasons: ContextVar[Reasons | None] = ContextVar("mmspike_reasons", default=None)


def run(layers: Iterable[SpikingLayer], x_seq: Tensor) -> Tensor | None:
    """Run spiking layers one after the other, as fast as an engine can.

    Args:
        layers: The layers. Those that are modules with hooks are not run here, since their hooks
            want to see them called; nor are those that are no :class:`SpikingLayer`.
        x_seq: Membrane potentials, ``[T, B, C, ...]``.

    Returns:
        Membrane potentials, ``[T, B, C', ...]``; ``None`` if the layers have to run plainly.
    """
    if torch.compiler.is_compiling():  # what is compiled is the compiler's to fuse
        return None
    layers = tuple(layers)
    if not all(map(is_spiking_layer, layers)):
        return None
    engine = _engine_for(layers, x_seq)
    return engine.run(layers, x_seq) if engine else None


def attend(attention: SpikingAttention, x_seq: Tensor) -> Tensor | None:
    """Run an attention on spikes, as fast as an engine can.

    Args:
        attention: The attention.
        x_seq: Membrane potentials, ``[T, B, C, H, W]``.

    Returns:
        Membrane potentials, ``[T, B, C, H, W]``; ``None`` if it has to run plainly, as one that
        averages does.
    """
    if torch.compiler.is_compiling() or attention.scale is None:
        return None
    projections = (Link(attention.neuron, *p[:2]) for p in attention.projections())
    engine = _engine_for((*projections, attention.output()), x_seq)
    return engine.attend(attention, x_seq) if engine else None


@contextmanager
def reasons_noted() -> Iterator[Reasons]:
    """Note, for all layers that run inside in this thread, why they do not run fused."""
    reasons: Reasons = {}
    token = _reasons.set(reasons)
    try:
        yield reasons
    finally:
        _reasons.reset(token)


def _engine_for(layers: Sequence[SpikingLayer], x_seq: Tensor) -> Engine | None:
    engine, reason = _choose(layers, x_seq)
    noted = _reasons.get()
    if noted is not None:
        for layer in layers:
            why = reason if engine is None else reason or engine.why_not_fused(layer, x_seq)
            noted[layer.layer] = why
    return engine


def _choose(layers: Sequence[SpikingLayer], x_seq: Tensor) -> tuple[Engine | None, str | None]:
    """The engine that takes the input, and why it is not the first."""
    if not layers:
        return None, None
    if not is_enabled():
        return None, "fast paths are switched off"
    if any(isinstance(layer, nn.Module) and is_watched(layer) for layer in layers):
        return None, "a layer has hooks"
    device = x_seq.device.type
    engines = [engine for engine in ENGINES if engine.device in (device, None)]
    known = any(engine.device for engine in engines)
    reason = None if known else f"there is no engine for {device} yet"
    for engine in engines:
        why = engine.why_not(x_seq)
        if why is None:
            return engine, reason
        reason = reason or why
    return None, reason
