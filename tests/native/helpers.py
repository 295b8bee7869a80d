"""Spikes as the kernels take them, made without the kernels, and what plain torch makes of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmspike.native import attention, conv, depthwise, lif, norm
from mmspike.native.library import LIFStruct
from mmspike.native.norm import Norm

NEURON = LIFStruct(
    tau=2.0, threshold=0.5, alpha=4.0, decay_input=1, detach_reset=1, surrogate=0
)  # as published


class Spikes(NamedTuple):
    """Spikes of T steps, as floats ``[T * B, C, H, W]`` and as bits ``[T, bytes of a step]``."""

    floats: Tensor
    bits: Tensor


def pack(spikes: Tensor) -> Tensor:
    """Bits of spikes ``[T, ...]``, in the order of their axes."""
    rows = spikes.flatten(1).to(torch.uint8).numpy()
    return torch.from_numpy(np.packbits(rows, axis=1, bitorder="little"))


def make_spikes(steps, batch, channels, height, width, rate=0.3) -> Spikes:
    spikes = (torch.rand(steps, batch, height, width, channels) < rate).float()
    return Spikes(spikes.flatten(0, 1).permute(0, 3, 1, 2), pack(spikes))


def channels_last(*shape: int) -> Tensor:
    n, c, h, w = shape
    return torch.randn(n, h, w, c).permute(0, 3, 1, 2)


def assert_close(given, expected):
    """The rounding errors of sums in float32 are below 1e-5 of the largest of them."""
    assert given.dtype == torch.float32
    assert given.shape == expected.shape
    largest = expected.abs().max().item() if expected.numel() else 0
    torch.testing.assert_close(given.double(), expected.double(), rtol=0, atol=1e-5 * largest)


def check_conv(s: Spikes, out_channels, kernel, stride, padding, bias, table) -> None:
    """Compare a convolution and its gradients with torch's in double precision."""
    x = s.floats.double().requires_grad_()
    weight = torch.randn(out_channels, x.size(1), *kernel)
    start = torch.randn(out_channels) if bias else None
    w = weight.double().requires_grad_()
    expected = F.conv2d(x, w, None if start is None else start.double(), stride, padding)
    geometry = conv.geometry(tuple(x.shape), tuple(weight.shape), stride, padding, table)
    laid_out = conv.lay_out_weight(weight, table)
    y = conv.forward(s.bits, laid_out, start, geometry)
    assert_close(y, expected)
    if out_channels % 8 == 0:
        check_fire(s, laid_out, start, geometry, y)
    if stride == (1, 1):
        grad_out = channels_last(*y.shape)
        grads = torch.autograd.grad(expected, (x, w), grad_out.double())
        assert_close(conv.grad_weight(s.bits, grad_out, geometry), grads[1])
        if kernel == (3, 3):
            assert_close(conv.grad_input(grad_out, weight, geometry), grads[0])


def check_fire(s: Spikes, laid_out, start, geometry, y) -> None:
    """Compare the neurons that read a convolution in the same pass with those after it."""
    steps = s.bits.size(0)
    bits, count = conv.forward_and_fire(s.bits, laid_out, start, steps, NEURON, geometry)
    rows = y.permute(0, 2, 3, 1).reshape(steps, -1)
    expected = torch.empty_like(rows)
    lif.forward(rows, expected, NEURON)
    assert torch.equal(bits, pack(expected))
    assert count == expected.sum()


def check_depthwise(s: Spikes, side, padding) -> None:
    """Compare a depthwise convolution and the gradient of its weights with torch's."""
    c = s.floats.size(1)
    weight = torch.randn(c, 1, side, side)
    w = weight.double().requires_grad_()
    expected = F.conv2d(s.floats.double(), w, None, 1, padding, groups=c)
    geometry = conv.geometry(tuple(s.floats.shape), tuple(weight.shape), (1, 1), padding)
    y = depthwise.forward(s.bits, weight, geometry)
    assert_close(y, expected)
    grad_out = channels_last(*y.shape)
    (grad,) = torch.autograd.grad(expected, w, grad_out.double())
    assert_close(depthwise.grad_weight(s.bits, grad_out, geometry), grad)


def check_attention(s: Spikes, num_heads) -> None:
    """Compare the attention, whose channels are q, k and v, with its definition, to the bit."""
    n, c, h, w = s.floats.shape
    q, k, v = s.floats.flatten(2).transpose(1, 2).unflatten(2, (3, num_heads, -1)).unbind(2)
    expected = torch.einsum("nihd,njhd,njhe->nihe", *(x.double() for x in (q, k, v)))
    given = attention.forward(s.bits, (n, h * w, c // 3), num_heads, 0.125)
    assert torch.equal(given.double(), 0.125 * expected.flatten(2))


def check_unpack(s: Spikes) -> None:
    """Compare the floats that bits become with those that they were made from."""
    spikes = s.floats.permute(0, 2, 3, 1)
    assert torch.equal(conv.unpack(s.bits, torch.empty(spikes.shape)), spikes)


def check_neuron(steps, batch, channels, normed) -> None:
    """Compare a neuron's bits with its floats, and the sums of its gradient with the gradient."""
    x = 2 * torch.randn(steps, batch * channels)
    norm = Norm(*torch.randn(3, channels)) if normed else None
    floats = torch.empty_like(x)
    lif.forward(x, floats, NEURON, norm)
    bits = torch.full((steps, (x.size(1) + 7) // 8), 255, dtype=torch.uint8)
    assert lif.forward(x, bits, NEURON, norm) == floats.sum()
    assert torch.equal(bits, pack(floats))
    grad, grad_x = torch.randn_like(x), torch.empty_like(x)
    sums = torch.zeros(2, channels, dtype=torch.float64) if normed else None
    lif.backward(x, grad, grad_x, NEURON, norm, sums)
    assert torch.isfinite(grad_x).all()
    if normed:
        products = torch.stack([grad_x, grad_x * (x - norm.mean.repeat(batch))]).double()
        assert_close(sums.float(), products.unflatten(2, (batch, channels)).sum((1, 2)))


def check_norm(batch, channels, height, width) -> None:
    """Compare the sums and the result of a norm's backward pass with their definitions."""
    grad, y, out = (channels_last(batch, channels, height, width) for _ in range(3))
    mean, a, b, c = torch.randn(4, channels)
    centred = y - mean.view(-1, 1, 1)
    expected = torch.stack([x.double().sum((0, 2, 3)) for x in (grad, grad * centred)])
    given = norm.sums(grad, y, mean)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5 * (1 + y.numel() / channels))
    norm.backward(grad, y, out, mean, a, b, c)
    a, b, c = (x.view(-1, 1, 1) for x in (a, b, c))
    assert_close(out, a * grad + b * centred + c)
