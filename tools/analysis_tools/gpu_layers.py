"""Chains of layers and neurons alone, timed on a GPU by ``benchmark_gpu.py``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from gpu_bench import Bench
from gpu_trainings import make_plain, plainly
from torch import Tensor, nn

from mmspike.backbones.blocks import ChannelMLP, SepConv
from mmspike.layers.conv import ONE_SIGMA_RATE, run_layers, spike_conv
from mmspike.layers.time import per_step
from mmspike.neurons import LIF


def layers(bench: Bench) -> None:
    """Chains of layers, forward and backward: 64 channels of 256 x 256, 8 images."""
    channels, size = (8, 8) if bench.dry else (64, 256)
    norm_cfg = {"type": "BN"}

    def conv(a: int, b: int, kernel: int) -> nn.Module:
        return spike_conv(a, b, kernel, norm_cfg=norm_cfg, init_rate=ONE_SIGMA_RATE)

    chains = {
        "two 1x1 layers": nn.Sequential(conv(channels, channels, 1), conv(channels, channels, 1)),
        "SepConv": SepConv(channels, norm_cfg, None),
        "ChannelMLP": ChannelMLP(channels, 3, norm_cfg, None),
    }
    for steps in (1, 4):
        images = max(bench.images // steps, 1)
        x = torch.randn(steps, images, size, size, channels, device=bench.device)
        x = x.permute(0, 1, 4, 2, 3).to(bench.dtype).requires_grad_()  # channels-last
        for name, chain in chains.items():
            chain = chain.to(bench.device)
            for way, net in {"eager": make_plain(copy.deepcopy(chain)), "ours": chain}.items():
                with bench.guarded("layers", f"{name}, {way}, T = {steps}"):

                    def step(net: nn.Module = net, way: str = way, x: Tensor = x) -> None:
                        plain = plainly() if way == "eager" else nullcontext()
                        with bench.autocast(), plain:
                            y = run_layers(net, x)
                        torch.autograd.grad(y, [x, *net.parameters()], y.detach())

                    row = bench.time(step, 0.5)
                    what = f"{name}, forward and backward, {images} images"
                    bench.note("layers", what=what, T=steps, way=way, **row)
    _time_norm_and_neuron(bench, channels, size)


def _time_norm_and_neuron(bench: Bench, channels: int, size: int) -> None:
    """A norm and the neuron after it, against a copy of the bytes that they must touch."""
    for steps in (1, 4):
        shape = (steps, bench.images, size, size, channels)
        y = torch.randn(shape, device=bench.device, dtype=bench.dtype).permute(0, 1, 4, 2, 3)
        grad, y = torch.randn_like(y), y.requires_grad_()
        source = torch.empty(5 * y.numel() // 2, device=bench.device, dtype=bench.dtype)
        target = torch.empty_like(source)
        norm = nn.BatchNorm2d(channels).to(bench.device)
        nn.init.constant_(norm.weight, 2.0)
        eager = make_plain(nn.Sequential(LIF()))
        ways = {
            "eager": lambda y, norm=norm, eager=eager: eager(per_step(norm, y)),
            "ours": partial(_fused_pair(bench), norm, LIF()),
        }
        runs = {"copy": lambda source=source, target=target: target.copy_(source)}
        for way, pair in ways.items():
            runs[way] = lambda pair=pair, y=y, grad=grad: torch.autograd.grad(pair(y), y, grad)
        for way, run in runs.items():
            with bench.guarded("layers", f"norm and neuron, {way}"), bench.autocast():
                what = "norm and neuron, forward and backward"
                bench.note("layers", what=what, T=steps, way=way, **bench.time(run, 0.3))


def _fused_pair(bench: Bench) -> Callable[[nn.Module, nn.Module, Tensor], Tensor]:
    """What runs a norm and the neuron after it together on this device."""
    if bench.dry:
        from mmspike.fused.cpu.spikes import norm_and_fire

        return norm_and_fire
    from mmspike.fused.cuda.spikes import norm_and_fire

    return lambda norm, neuron, y: norm_and_fire(norm, neuron, y).values


def neurons(bench: Bench) -> None:
    """The neuron alone, forward and backward, every backend that is there."""
    for steps in (1, 4):
        count = 2**8 if bench.dry else 2**24 // steps
        x = 2 * torch.randn(steps, count, device=bench.device, dtype=bench.dtype)
        source = x.new_empty(5, x.numel() // 2)
        target, x = torch.empty_like(source), x.requires_grad_()
        runs = {"copy": lambda source=source, target=target: target.copy_(source)}
        eager = make_plain(nn.Sequential(LIF()))
        for way, net in {
            "eager": eager,
            "ours": LIF(),
            "ours, plain torch": LIF(backend="torch"),
        }.items():
            runs[way] = lambda net=net, x=x: torch.autograd.grad(net(x), x, x.detach())
        for way, run in runs.items():
            with bench.guarded("neurons", f"{way}, T = {steps}"):
                what = f"{count} neurons, forward and backward"
                bench.note("neurons", what=what, T=steps, way=way, **bench.time(run, 0.3))
