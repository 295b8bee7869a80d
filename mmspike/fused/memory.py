"""How maps lie in memory, and what is kept of spikes for the backward pass, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from mmspike.fused.protocols import SpikingAttention, SpikingLayer
from mmspike.layers.time import per_step, unfold_time
from mmspike.neurons import count_of, levels_of, unit_of


def in_fastest_format(img: Tensor) -> Tensor:
    """Lay out images ``[(T,) B, C, H, W]`` such that convolutions on their device are fastest.

    That is channels-last memory: on a CPU, oneDNN takes a third to half of the time in it for the
    maps of the first stages, and on a GPU, cuDNN a fifth for depthwise convolutions in half
    precision. All that follows keeps the format. On other devices the caller decides.
    """
    if img.device.type not in ("cpu", "cuda"):
        return img
    last = img.flatten(0, -4).contiguous(memory_format=torch.channels_last)
    return last if img.dim() == 4 else unfold_time(last, img.size(0))


def join_pixels(x_seqs: Sequence[Tensor]) -> Tensor:
    """Put the pixels of maps side by side: ``[T, B, C, H, W]`` each to ``[T, B, C, pixels]``.

    On a GPU the channels stay last in memory.
    """
    if is_channels_last_device(x_seqs[0]):
        pixels = [x.movedim(2, -1).flatten(2, 3) for x in x_seqs]  # [T, B, pixels, C]
        return torch.cat(pixels, dim=2).transpose(2, 3)
    return torch.cat([x.flatten(3) for x in x_seqs], dim=-1)


def is_channels_last_device(x: Tensor) -> bool:
    """Whether all maps on the device of ``x`` lie in channels-last memory, weights included."""
    return x.device.type == "cuda"


def lay_out_weight(layer: nn.Module) -> None:
    """Lay out the weights of a convolution on a GPU as the maps, once, where they are.

    Values, names and the parameter itself stay.
    """
    weight = getattr(layer, "weight", None)
    if weight is None or weight.dim() != 4 or not is_channels_last_device(weight):
        return
    if not weight.is_contiguous(memory_format=torch.channels_last):
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)


MOST_LEVELS = 255
"""The largest number of spikes of an output that a byte holds."""


def values_of(counts: Tensor, unit: float, dtype: torch.dtype) -> Tensor:
    """What a neuron gave, from numbers of spikes as bytes."""
    return counts.to(dtype) if unit == 1.0 else (counts / round(1 / unit)).to(dtype)


@contextmanager
def spikes_saved_as_bytes(spikes: Tensor, levels: int, unit: float = 1.0) -> Iterator[None]:
    """Let what runs inside keep ``spikes`` as bytes, a quarter of their floats.

    They are whole numbers of up to ``levels`` times a unit: nothing is lost. The copy is shared by
    all that keep them. Where something else decides what is kept (activation checkpointing
    does), it goes on to.

    Args:
        spikes: What a neuron gave.
        levels: The largest of these numbers; above 255, nothing is changed.
        unit: What they are multiplied with, 1 or one over a whole number.
    """
    if not torch.is_grad_enabled() or levels > MOST_LEVELS or others_save():
        yield
        return
    memory, numel, dtype = spikes.data_ptr(), spikes.numel(), spikes.dtype
    packed: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        if x.data_ptr() != memory or x.numel() != numel or x.dtype != dtype:
            return x
        if not packed:
            packed.append(count_of(x, unit).to(torch.uint8))
        same = packed[0].shape == x.shape and packed[0].stride() == x.stride()
        return packed[0] if same else x

    def unpack(x: Tensor) -> Tensor:
        return values_of(x, unit, dtype) if x.dtype == torch.uint8 else x

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def saving(spikes: object, neuron: nn.Module) -> AbstractContextManager:
    """Let what runs inside keep a neuron's spikes as bytes, if they are not bits already."""
    levels = levels_of(neuron)
    if levels is None or not isinstance(spikes, Tensor):
        return nullcontext()
    return spikes_saved_as_bytes(spikes, levels, unit_of(neuron))


def others_save() -> bool:
    """Whether hooks for saved tensors are there already; torch calls the innermost pair alone."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


class ByteEngine:
    """Runs layers plainly, in training, but keeps their spikes as bytes for the backward pass."""

    name = "bytes"
    device = None

    def why_not(self, x_seq: Tensor) -> str | None:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        return None if torch.is_grad_enabled() else "nothing is kept without gradients"

    def why_not_fused(self, layer: SpikingLayer, x_seq: Tensor) -> str | None:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        return "spikes are kept as bytes, and nothing is fused"

    def run(self, layers: Sequence[SpikingLayer], x_seq: Tensor) -> Tensor:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        for layer in layers:
            spikes = layer.neuron(x_seq)
            with saving(spikes, layer.neuron):
                y_seq = per_step(layer.layer, spikes)
            x_seq = per_step(layer.norm, y_seq)
        return x_seq

    def attend(self, attention: SpikingAttention, x_seq: Tensor) -> Tensor:
        """See :class:`~mmspike.fused.protocols.Engine`."""
        spikes = attention.neuron(x_seq)
        with saving(spikes, attention.neuron):
            qkv = [
                neuron(per_step(lambda s, c=conv, n=norm: n(c(s)), spikes))  # type: ignore[misc]
                for conv, norm, neuron in attention.projections()
            ]
        if len(qkv) == 1:
            qkv = qkv[0].chunk(3, dim=2)
        return self.run([attention.output()], attention.mix(*qkv))
