"""Neurons in front of layers: as bits where the kernels can, with the norm in front of them fused.

On a CPU with the compiled kernels, a neuron's spikes are written as bits for the convolutions that
read them (``event_driven.py``), and a batch norm and the neuron behind it are one pass over memory
that keeps the norm's input alone. Whatever the kernels do not know (other neurons, norms, types and
devices, hooks that want to see what passes) takes the plain way: norm, neuron, layer, one by one.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from mmspike.layers.event_driven import (
    PackedSpikes,
    convolve_and_fire,
    is_depthwise,
    is_watched,
    runs_plainly,
)
from mmspike.layers.norm import are_plain, can_normalise, norm_gradients, normalise, statistics
from mmspike.layers.time import fold_time, per_step, unfold_time
from mmspike.native import lif
from mmspike.native.norm import Norm
from mmspike.neurons import LIF
from mmspike.neurons.kernels import native
from mmspike.neurons.kernels.common import LIFParameters, empty_like_steps, rows


def fire(neuron: nn.Module, x_seq: Tensor, *readers: nn.Module) -> Tensor | PackedSpikes:
    """Turn membrane potentials into spikes: as bits, if the kernels know neuron and readers.

    Args:
        neuron: The neuron.
        x_seq: Membrane potentials, ``[T, B, C, H, W]``.
        *readers: The layers that read the spikes, through ``event_driven.convolve``.

    Returns:
        Spikes of the same shape.
    """
    if not (_can_fire(neuron, x_seq) and _can_pack(x_seq, readers)):
        return neuron(x_seq)
    run = _Fire.apply if torch.is_grad_enabled() else _packed
    return PackedSpikes(*run(_channels_last(x_seq), neuron.dynamics()))


def norm_and_fire(
    norm: nn.Module, neuron: nn.Module, y_seq: Tensor, *readers: nn.Module
) -> Tensor | PackedSpikes:
    """Normalise, and turn the result into spikes: ``fire(neuron, norm(y_seq), *readers)``.

    Args:
        norm: The norm, over ``[N, C, H, W]``.
        neuron: The neuron.
        y_seq: ``[T, B, C, H, W]``.
        *readers: The layers that read the spikes; none where something else does.

    Returns:
        Spikes of the same shape.
    """
    if not (can_normalise(norm, y_seq, 5) and _can_fire(neuron, y_seq)):
        return fire(neuron, per_step(partial(normalise, norm), y_seq), *readers)
    y_seq = _dense(_channels_last(y_seq))
    mean, var = statistics(norm, fold_time(y_seq))
    pack = bool(readers) and _can_pack(y_seq, readers)
    out = _NormFire.apply(
        y_seq, norm.weight, norm.bias, mean, var, norm.eps, norm.training, neuron.dynamics(), pack
    )
    return PackedSpikes(*out) if pack else out


def convolve_norm_and_fire(
    layer: nn.Module,
    norm: nn.Module,
    neuron: nn.Module,
    spikes: Tensor | PackedSpikes,
    *readers: nn.Module,
) -> PackedSpikes | None:
    """Run a convolution, its norm and the next neuron in one pass, where a deployed model can.

    Args:
        layer: The convolution.
        norm: Its norm, which deployment has folded away.
        neuron: The neuron behind.
        spikes: What the convolution reads, ``[T, B, C, H, W]``.
        *readers: The layers that read the neuron's spikes.

    Returns:
        The neuron's spikes; ``None`` if the three have to be run one by one.
    """
    if not (
        isinstance(spikes, PackedSpikes)
        and type(norm) is nn.Identity
        and _can_fire(neuron, spikes.carrier)
        and not is_watched(norm)
        and _can_read(layer, spikes.shape[2])
        and all(_can_read(reader, _out_channels(layer)) for reader in readers)
    ):
        return None
    return convolve_and_fire(layer, spikes, neuron.dynamics())


def fire_into_bits(neuron: nn.Module, x_seq: Tensor) -> PackedSpikes | None:
    """:func:`fire` in inference for what reads the bits themselves; ``None`` where it cannot."""
    if torch.is_grad_enabled() or not _can_fire(neuron, x_seq):
        return None
    return PackedSpikes(*_packed(_channels_last(x_seq), neuron.dynamics()))


def _can_fire(neuron: nn.Module, x_seq: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and type(neuron) is LIF
        and neuron.backend in ("auto", "native")
        and native.supports(neuron.surrogate_function)
        and runs_plainly(x_seq, torch.float32)
        and x_seq.dim() == 5
        and not is_watched(neuron)
    )


def _can_pack(x_seq: Tensor, readers: tuple[nn.Module, ...]) -> bool:
    fits = x_seq.size(-1) < 2**13  # places of spikes have 32 bits
    return fits and bool(readers) and all(_can_read(r, x_seq.size(2)) for r in readers)


def _can_read(layer: nn.Module, channels: int) -> bool:
    if hasattr(layer, "reader"):  # several layers, of which the first reads the spikes
        return not is_watched(layer) and _can_read(layer.reader, channels)
    return (
        (type(layer) is nn.Conv2d or hasattr(layer, "packed_rows"))
        and (layer.groups == 1 or is_depthwise(layer))
        and set(layer.dilation) == {1}
        and not isinstance(layer.padding, str)
        and getattr(layer, "padding_mode", "zeros") == "zeros"
        and layer.in_channels == channels  # or the layer has something to say
        and are_plain(layer.weight, layer.bias)
        and layer.weight[0].numel() < 2**16
        and not is_watched(layer)
    )


def _out_channels(layer: nn.Module) -> int | None:
    return getattr(layer, "out_channels", None)


def _channels_last(x_seq: Tensor) -> Tensor:
    """``x_seq``, ``[T, B, C, H, W]``, with the channels of every step last in memory."""
    if x_seq[0].is_contiguous(memory_format=torch.channels_last):
        return x_seq
    x = fold_time(x_seq).contiguous(memory_format=torch.channels_last)
    return unfold_time(x, x_seq.size(0))


def _dense(x_seq: Tensor) -> Tensor:
    """``x_seq`` with its steps one behind the other in memory, each as it lies."""
    if x_seq.size(0) == 1 or x_seq.stride(0) == x_seq[0].numel():
        return x_seq
    return _channels_last(x_seq.clone(memory_format=torch.contiguous_format))


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x_seq: Tensor, p: LIFParameters) -> tuple[Tensor, Tensor, int]:
        ctx.save_for_backward(x_seq)
        ctx.p = p
        ctx.set_materialize_grads(False)
        carrier, bits, count = _packed(x_seq, p)
        ctx.mark_non_differentiable(bits)
        return carrier, bits, count

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s_seq: Tensor | None, *_: None) -> tuple:
        if grad_s_seq is None:
            return None, None
        (x_seq,) = ctx.saved_tensors
        return native.gradient(x_seq, grad_s_seq, ctx.p), None


class _NormFire(torch.autograd.Function):
    """Batch norm and neuron; the norm's output is never kept, but computed again."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        y_seq: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
        batch: bool,
        p: LIFParameters,
        pack: bool,
    ) -> Tensor | tuple[Tensor, Tensor, int]:
        inv_std = torch.rsqrt(var + eps)
        scale = weight * inv_std
        shift = (bias.double() - mean.double() * scale.double()).float()  # rounded once, as torch
        norm = Norm(scale, shift, mean.clone())
        ctx.save_for_backward(y_seq, inv_std, *norm)
        ctx.batch, ctx.p = batch, p
        ctx.set_materialize_grads(False)
        if pack:
            carrier, bits, count = _packed(y_seq, p, norm)
            ctx.mark_non_differentiable(bits)
            return carrier, bits, count
        s_seq = empty_like_steps(y_seq)
        lif.forward(rows(y_seq), rows(s_seq), native.struct_of(p), norm)
        return s_seq

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_s_seq: Tensor | None, *_: None) -> tuple:
        if grad_s_seq is None:
            return (None,) * 9
        y_seq, inv_std, *norm = ctx.saved_tensors
        y_seq = _dense(_channels_last(y_seq))  # hooks may have kept it in another layout
        norm = Norm(*norm)
        sums = torch.zeros(2, norm.scale.numel(), dtype=torch.float64)
        grad = native.gradient(y_seq, grad_s_seq, ctx.p, norm, sums)
        grads = norm_gradients(
            grad, y_seq, norm.mean, norm.scale, inv_std, sums, ctx.batch, out=grad
        )
        return *grads, *(None,) * 6


def _packed(
    x_seq: Tensor, p: LIFParameters, norm: Norm | None = None
) -> tuple[Tensor, Tensor, int]:
    x = rows(x_seq)
    bits = x.new_empty(x.size(0), (x.size(1) + 7) // 8, dtype=torch.uint8)
    count = lif.forward(x, bits, native.struct_of(p), norm)
    return x_seq.new_zeros(()).expand(x_seq.shape), bits, count
