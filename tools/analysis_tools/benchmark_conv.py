"""Time convolutions and attention that follow the spikes against torch's dense ones, by rate.

On a CPU with the compiled kernels. Every line times, interleaved, on maps of the 15M backbone: the
convolution forward, as the training path runs it; forward with the neuron after it, as a deployed
model runs both; the gradient of the weights; that of the inputs, where it is not torch's. Ratios
are against plain torch: floats in channels-last memory, weights as they are, the backend "eager" of
the neuron. The way that the model takes forward is "bits" (rows of weights are added up spike by
spike), "table" (a lookup table over four channels) or "dense" (torch's own; the ratios stand there
all the same), for the training path and, where it takes another, the deployed model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timing import interleave, keep_memory
from torch import Tensor

from mmspike.fused.cpu.attention import mix_packed
from mmspike.fused.cpu.convolution import DENSE_RATE, takes_table
from mmspike.fused.cpu.spikes import PackedSpikes, fire_into_bits
from mmspike.layers.attention import linear_attention
from mmspike.native import conv as kernels
from mmspike.native import depthwise as depthwise_kernels
from mmspike.native import library
from mmspike.neurons import LIF
from mmspike.neurons.kernels import native

HEAD = (
    "| layer | map | rate | way | forward, ms | ratio | with neuron, ms | ratio | "
    "weights' gradient, ms | ratio | inputs' gradient, ms | ratio |\n|" + "---|" * 12
)


class Layer(NamedTuple):
    """A convolution of the 15M backbone at 224 x 224, padded by half its kernel."""

    channels: int
    out_channels: int
    kernel: int
    side: int
    groups: int = 1


LAYERS = (
    Layer(32, 64, 1, 112),
    Layer(64, 64, 7, 112, groups=64),
    Layer(32, 128, 3, 112),
    Layer(128, 32, 3, 112),
    Layer(64, 256, 3, 56),
    Layer(256, 64, 3, 56),
    Layer(256, 256, 7, 28, groups=256),
    Layer(128, 512, 3, 28),
    Layer(512, 128, 3, 28),
    Layer(256, 1024, 1, 14),
    Layer(1024, 256, 1, 14),
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rates", nargs="+", type=float, default=[0.05, 0.1, 0.2, 0.3, 0.5], help="firing rates"
    )
    parser.add_argument("--batch-size", type=int, default=4, help="images (4)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each, after one of each (7)")
    return parser.parse_args()


def spikes_at(rate: float, shape: tuple[int, ...]) -> tuple[Tensor, PackedSpikes]:
    """Random spikes ``[1, B, C, H, W]``: floats ``[B, C, H, W]`` in channels-last memory, and bits.

    Raises:
        SystemExit: If the kernels cannot pack them.
    """
    potentials = torch.where(torch.rand(1, *shape) < rate, 4.0, 0.0)
    packed = fire_into_bits(LIF(), potentials)
    if packed is None:
        raise SystemExit(f"benchmark_conv: the kernels do not take spikes of shape {shape}")
    return packed.unpack()[0], packed


def time_layer(layer: Layer, rate: float, args: argparse.Namespace) -> str:
    """A line of the table."""
    c, out, k, side, groups = layer
    spikes, packed = spikes_at(rate, (args.batch_size, c, side, side))
    weight = torch.randn(out, c // groups, k, k) / (k * k * c * rate) ** 0.5
    pad = (k // 2, k // 2)
    grad = torch.randn(args.batch_size, out, side, side)
    grad = grad.contiguous(memory_format=torch.channels_last)
    depthwise = groups > 1
    table, made = (not depthwise and takes_table(weight, packed, made) for made in (False, True))
    g, g_made = (
        kernels.geometry(tuple(spikes.shape), tuple(weight.shape), (1, 1), pad, q)
        for q in (table, made)
    )
    bits, neuron, eager = packed.bits, LIF(), LIF(backend="eager")

    def dense() -> Tensor:
        return F.conv2d(spikes, weight, padding=pad, groups=groups)

    def dense_grad(*which: bool) -> tuple[Tensor | None, ...]:
        return torch.ops.aten.convolution_backward(
            grad, spikes, weight, None, (1, 1), pad, (1, 1), False, (0, 0), groups, which
        )

    runs: dict[str, Callable[[], object]] = {
        "dense": dense,
        "dense grad": lambda: dense_grad(False, True, False),
    }
    if depthwise:
        runs["ours"] = lambda: depthwise_kernels.forward(bits, weight, g)
        runs["ours grad"] = lambda: depthwise_kernels.grad_weight(bits, grad, g)
    else:
        rows, lif = kernels.lay_out_weight(weight, made), native.struct_of(neuron.dynamics())
        runs["dense fire"] = lambda: eager(dense()[None])
        runs["ours"] = lambda: kernels.forward(bits, kernels.lay_out_weight(weight, table), None, g)
        runs["ours fire"] = lambda: kernels.forward_and_fire(bits, rows, None, 1, lif, g_made)
        runs["ours grad"] = lambda: kernels.grad_weight(bits, grad, g)
    if not depthwise and k == 3:
        runs["dense inputs"] = lambda: dense_grad(True, False, False)
        runs["ours inputs"] = lambda: kernels.grad_input(grad, weight, g)
    seconds = interleave(runs, args.rounds, "cpu")
    few = depthwise or packed.count <= DENSE_RATE * spikes.numel()
    ways = ["table" if q else "bits" if few else "dense" for q in (table, made)]
    way = "/".join(dict.fromkeys(ways))
    name = f"depthwise {k}x{k}, {c}" if depthwise else f"{k}x{k}, {c} to {out}"
    cells = [name, f"{side}x{side}", f"{100 * rate:.0f} %", way]
    for what in ("", " fire", " grad", " inputs"):
        ours = seconds.get(f"ours{what}")
        cells += ratio_cells(seconds[f"dense{what}"], ours) if ours else ["", ""]
    return "| " + " | ".join(cells) + " |"


def time_attention(rate: float, args: argparse.Namespace, dim: int = 256, heads: int = 8) -> str:
    """A line of the table: ``q (k^T v)`` over 14 x 14 pixels."""
    spikes, packed = spikes_at(rate, (args.batch_size, 3 * dim, 14, 14))
    q, k, v = spikes.flatten(2).unflatten(1, (3, heads, -1)).unbind(1)
    runs = {
        "dense": lambda: linear_attention(q, k, v, 0.125),
        "ours": lambda: mix_packed(packed, heads, 0.125),
    }
    seconds = interleave(runs, args.rounds, "cpu")
    cells = [f"attention, {dim}, {heads} heads", "14x14", f"{100 * rate:.0f} %", "bits"]
    cells += ratio_cells(seconds["dense"], seconds["ours"])
    return "| " + " | ".join(cells) + " |" * 7


def ratio_cells(dense: float, ours: float) -> list[str]:
    """Milliseconds of ours, and how many times as long torch took."""
    return [f"{1e3 * ours:.2f}", f"{dense / ours:.2f}"]


@torch.no_grad()
def main() -> None:
    """Time every layer at every rate."""
    args = parse_args()
    if not all(0 < rate <= 1 for rate in args.rates):
        raise SystemExit(f"benchmark_conv: --rates must be above 0, at most 1, got {args.rates}")
    if not library.is_available():
        raise SystemExit(
            "benchmark_conv: the kernels were not compiled, see tools/check_install.py"
        )
    keep_memory()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    print(f"{library.level()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(HEAD, flush=True)
    for layer in LAYERS:
        for rate in args.rates:
            print(time_layer(layer, rate, args), flush=True)
    for rate in args.rates:
        print(time_attention(rate, args), flush=True)


if __name__ == "__main__":
    main()
