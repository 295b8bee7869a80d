"""Calls of depthwise convolutions of spikes (``csrc/depthwise.h``)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from mmspike.native.library import ConvStruct, call, pointer


def forward(bits: Tensor, weight: Tensor, conv: ConvStruct) -> Tensor:
    """Convolve every channel by itself, 3 x 3 or 7 x 7, at stride 1.

    Args:
        bits: Spikes in the order ``[N, H, W, C]``.
        weight: ``[C, 1, h, w]``.
        conv: What :func:`mmspike.native.conv.geometry` gave.

    Returns:
        ``[N, C, H', W']`` in channels-last memory.
    """
    out = weight.new_empty(conv.images, conv.out_height, conv.out_width, conv.channels)
    rows = weight.flatten(1).t().contiguous()  # [h * w, C]
    call(
        "depthwise_forward",
        pointer(bits),
        pointer(rows),
        pointer(out),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return out.permute(0, 3, 1, 2)


def grad_weight(bits: Tensor, grad_out: Tensor, conv: ConvStruct) -> Tensor:
    """Gradient of the weights of :func:`forward`, ``[C, 1, h, w]``.

    Args:
        bits: As there.
        grad_out: Gradient of the output, in channels-last memory.
        conv: As there.
    """
    h, w = conv.kernel_height, conv.kernel_width
    grad = grad_out.new_empty(h, w, conv.channels)
    call(
        "depthwise_grad_weight",
        pointer(bits),
        pointer(grad_out),
        pointer(grad),
        ctypes.byref(conv),
        torch.get_num_threads(),
    )
    return grad.permute(2, 0, 1).unsqueeze(1)
