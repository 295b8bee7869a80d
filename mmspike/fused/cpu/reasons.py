"""Why the kernels for the CPU do not take something; ``None`` where they do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmspike.fused.cpu.laid_out import LaidOutConv2d
from mmspike.fused.protocols import is_split
from mmspike.fused.reasons import why_not_lif, why_not_plain
from mmspike.fused.watch import is_watched
from mmspike.native.library import is_available
from mmspike.neurons.kernels import native

WIDEST_MAP = 2**13
"""Columns of a map from which on places of spikes do not fit into 32 bits."""

MOST_INPUTS = 2**16
"""Inputs of a convolution's output from which on they do not."""

_KERNELS_OF_DEPTHWISE = ((3, 3), (7, 7))


def why_not_input(x: Tensor) -> str | None:
    """Why a tensor cannot be computed with as it is."""
    if x.device.type != "cpu":
        return f"there is no engine for {x.device.type} yet"
    if not is_available():
        return "the kernels were not compiled"
    if x.dtype != torch.float32:
        return f"the kernels take float32, not {str(x.dtype).removeprefix('torch.')}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses other types"
    return why_not_plain(x)


def why_not_fire(neuron: nn.Module, x_seq: Tensor) -> str | None:
    """Why the kernels do not run a neuron on maps ``[T, B, C, H, W]``."""
    return why_not_lif(neuron, x_seq, "native", native.supports)


def why_not_read(layer: nn.Module) -> str | None:
    """Why a layer cannot read spikes as bits."""
    if is_watched(layer):
        return "the layer has hooks"
    if is_split(layer):
        return why_not_read(layer.first)
    if type(layer) not in (nn.Conv2d, LaidOutConv2d):
        return f"the kernels do not know {type(layer).__name__}"
    if layer.groups > 1:
        why = _why_not_depthwise(layer)
        if why:
            return why
    if set(layer.dilation) != {1}:
        return f"the kernels do not know dilation {tuple(layer.dilation)}"
    if isinstance(layer.padding, str) or getattr(layer, "padding_mode", "zeros") != "zeros":
        return "the kernels know zero padding given in numbers"
    if layer.weight.shape[1:].numel() >= MOST_INPUTS:
        return f"{layer.weight.shape[1:].numel()} inputs of an output are too many for the kernels"
    return why_not_parameters(layer.weight, layer.bias)


def _why_not_depthwise(conv: nn.Module) -> str | None:
    if not conv.groups == conv.in_channels == conv.out_channels:
        return f"the kernels do not know {conv.groups} groups of several channels"
    if tuple(conv.weight.shape[2:]) not in _KERNELS_OF_DEPTHWISE:
        return f"the kernels do not know depthwise kernels of {tuple(conv.weight.shape[2:])}"
    if set(conv.stride) != {1}:
        return f"the kernels do not know depthwise convolutions of stride {tuple(conv.stride)}"
    return None if conv.bias is None else "the kernels do not know depthwise biases"


def why_not_pack(channels: int, columns: int, layer: nn.Module) -> str | None:
    """Why spikes of so many channels and columns do not go to a layer as bits."""
    if columns >= WIDEST_MAP:
        return f"maps of {columns} columns are too wide for the kernels"
    first = layer.first if is_split(layer) else layer
    why = why_not_read(layer)
    if why is None and first.in_channels != channels:
        why = f"the layer reads {first.in_channels} channels, not {channels}"
    return why


def why_not_normalise(norm: nn.Module, y: Tensor) -> str | None:
    """Why the kernels do not run a norm over ``[..., C, H, W]``."""
    if type(norm) is not nn.BatchNorm2d:
        return f"the kernels know BatchNorm2d, not {type(norm).__name__}"
    if not (norm.affine and norm.track_running_stats and norm.num_batches_tracked is not None):
        return "the norm learns no scale or keeps no statistics"
    if norm.num_features != y.size(-3) or y.numel() <= norm.num_features:
        return "the norm does not fit the map, or the map has one value per channel"
    if is_watched(norm):
        return "the norm has hooks"
    return why_not_parameters(norm.weight, norm.bias, norm.running_mean, norm.running_var)


def why_not_parameters(*tensors: Tensor | None) -> str | None:
    """Why the kernels do not read parameters: they take float32 on the CPU, vectors dense."""
    for x in tensors:
        if x is None:
            continue
        if x.dtype != torch.float32 or x.device.type != "cpu":
            return f"the kernels take float32 parameters on the CPU, not {x.dtype} on {x.device}"
        if x.dim() == 1 and not x.is_contiguous():
            return "the kernels take contiguous parameters"
    return None
