"""The kernels' calls in plain torch, so that all around them is tested without a GPU and Triton."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
import torch.nn.functional as F

from mmspike.neurons.functional import integer_lif_multi_step, lif_multi_step
from mmspike.neurons.kernels.common import IntegerParameters


def modules():
    """The engine's modules that import Triton, also where it is not installed."""
    fake = {}
    if find_spec("triton") is None:
        fake = {"triton": ModuleType("triton"), "triton.language": ModuleType("triton.language")}
        fake["triton"].language = fake["triton.language"]
        fake["triton"].jit = lambda kernel=None, **_: kernel or (lambda later: later)
        fake["triton.language"].constexpr = object
        sys.modules.update(fake)
    try:
        names = ("norm_lif", "depthwise", "convolution", "attention", "spikes")
        return [import_module(f"mmspike.fused.cuda.{name}") for name in names]
    finally:
        for name in fake:
            del sys.modules[name]


norm_lif, depthwise, *_ = modules()


def norm_and_fire(y_seq, norm, p, out):
    running = (norm.running_mean, norm.running_var)
    if norm.training:
        norm.num_batches_tracked.add_(1)
    args = (*running, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps)
    x = F.batch_norm(y_seq.flatten(0, 1).float(), *args).to(y_seq.dtype)
    return fire(x.view_as(y_seq), p, out)


def fire(x_seq, p, out):
    assert x_seq.stride(2) == 1, "the engine gives channels-last maps"
    if isinstance(p, IntegerParameters):
        return _fire_integers(x_seq, p, out)
    spikes = lif_multi_step(x_seq.float(), **p._asdict()).to(out.dtype)
    spikes = spikes.movedim(2, -1).contiguous().movedim(-1, 2)
    bits = None
    if out.bits:
        eights = spikes.detach().movedim(2, -1).reshape(-1, 8).to(torch.uint8)
        bits = (eights << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)
    return spikes, bits


def _fire_integers(x_seq, p, out):
    values = integer_lif_multi_step(x_seq.float(), *p)
    counts = (values.detach() * (p.levels if p.normalize else 1)).round().to(torch.uint8)
    values, counts = (
        x.movedim(2, -1).contiguous().movedim(-1, 2) for x in (values.to(out.dtype), counts)
    )
    return values, counts if out.bits else None


def bias_and_fire(y_seq, bias, p, out):
    return fire((y_seq + bias.view(-1, 1, 1)).to(y_seq.dtype), p, out)


def unpack(bits, like):
    eights = bits.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8) & 1
    like.movedim(-3, -1).copy_(eights.view(like.movedim(-3, -1).shape))
    return like


def forward(x, rows, padding):
    weight = _weight_of(rows)
    out = F.conv2d(x, weight, padding=padding, groups=len(weight))
    return out.contiguous(memory_format=torch.channels_last)


def grad_input(grad_out, rows, padding):
    weight = _weight_of(rows)
    grad = F.conv_transpose2d(grad_out, weight, padding=padding, groups=len(weight))
    return grad.contiguous(memory_format=torch.channels_last)


def _weight_of(rows):
    size = int(rows.size(0) ** 0.5)
    return rows.t().reshape(rows.size(1), 1, size, size)


def put_in(monkeypatch):
    """Let the engine call these."""
    monkeypatch.setattr("mmspike.neurons.kernels.triton.has_triton", lambda: True)
    for call in (norm_and_fire, fire, bias_and_fire, unpack):
        monkeypatch.setattr(norm_lif, call.__name__, call)
    for call in (forward, grad_input):
        monkeypatch.setattr(depthwise, call.__name__, call)
