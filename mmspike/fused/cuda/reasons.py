"""Why the kernels for a GPU do not take something; ``None`` where they do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmspike.fused.protocols import is_split
from mmspike.fused.reasons import why_not_lif, why_not_map, why_not_plain
from mmspike.fused.watch import is_watched
from mmspike.neurons import IntegerLIF
from mmspike.neurons.kernels import triton


def why_not_input(x: Tensor) -> str | None:
    """Why a tensor on the right device cannot be computed with as it is."""
    if not triton.has_triton():
        return "Triton is not installed"
    why = triton.why_not(x)
    if why is not None:
        return why
    return why_not_plain(x)


def why_not_fire(neuron: nn.Module, x_seq: Tensor) -> str | None:
    """Why the kernels do not run a neuron on maps ``[T, B, C, H, W]``."""
    if type(neuron) is IntegerLIF:
        return why_not_map(neuron, x_seq)
    return why_not_lif(neuron, x_seq, "triton", triton.supports)


def why_not_read(layer: nn.Module) -> str | None:
    """Why a layer is called as it is, and not as a convolution that keeps bits of its spikes."""
    if is_watched(layer):
        return "the layer has hooks"
    if is_split(layer):
        return why_not_read(layer.first)
    if type(layer) is not nn.Conv2d:
        return f"{type(layer).__name__} runs as it is"
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return "convolutions need zero padding given in numbers"
    return None


def why_not_normalise(norm: nn.Module, y_seq: Tensor) -> str | None:
    """Why the kernels do not run a norm over ``[T, B, C, H, W]``."""
    if type(norm) not in (nn.BatchNorm2d, nn.SyncBatchNorm):
        return f"the kernels know BatchNorm2d and SyncBatchNorm, not {type(norm).__name__}"
    if not (norm.affine and norm.track_running_stats and norm.num_batches_tracked is not None):
        return "the norm learns no scale or keeps no statistics"
    if norm.momentum is None:
        return "the norm averages all batches alike"
    if norm.num_features != y_seq.size(2) or y_seq.numel() <= norm.num_features:
        return "the norm does not fit the map, or the map has one value per channel"
    if is_watched(norm):
        return "the norm has hooks"
    vectors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if any(v.dtype != torch.float32 or v.device != y_seq.device for v in vectors):
        return "the kernels take norms in float32 on the device of the map"
    return None
