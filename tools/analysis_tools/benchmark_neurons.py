"""Time the neurons alone, forward and backward, on every backend, interleaved in one run.

Ratios are against the reference (backend "torch"). The last column compares with a copy of the
bytes that forward and backward must touch: the input twice, spikes, their gradient, the input's.
On a CPU, a second table has batch norms in training, alone and with a neuron after them, against
torch's norm and the reference.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from timing import interleave, keep_memory
from torch import Tensor, nn

from mmspike.fused.cpu.norm import normalise
from mmspike.fused.cpu.spikes import norm_and_fire
from mmspike.layers.time import per_step
from mmspike.native import library
from mmspike.neurons import LIF
from mmspike.neurons.kernels.select import BACKENDS

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", type=int, default=2**22, help="neurons (4 million)")
    parser.add_argument("--time-steps", nargs="+", type=int, default=[1, 4], help="T (1 4)")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7, help="runs of each, after two of each (7)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def step_of(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    """Forward and backward."""
    grad = torch.ones_like(x)

    def step() -> object:
        return torch.autograd.grad(run(x), x, grad)

    return step


def time_norms(steps: int, args: argparse.Namespace, channels: int = 64) -> None:
    """Print the second table's lines for this T."""
    size = (steps, 1, args.neurons // channels, 1, channels)
    y = torch.randn(size).permute(0, 1, 4, 2, 3).requires_grad_()  # channels last in memory
    norm, neuron, reference = nn.BatchNorm2d(channels), LIF(), LIF(backend="torch")
    ways = {
        "norm": (partial(per_step, partial(normalise, norm)), partial(per_step, norm)),
        "norm and neuron": (
            partial(norm_and_fire, norm, neuron),
            lambda y: reference(per_step(norm, y)),
        ),
    }
    for what, (ours, torchs) in ways.items():
        runs = {"ours": step_of(ours, y), "torch": step_of(torchs, y)}
        times = interleave(runs, args.rounds, args.device)
        print(f"| {what} | {steps} | {1e3 * times['ours']:.2f} | ", end="")
        print(f"{times['torch'] / times['ours']:.2f} |", flush=True)


def main() -> None:
    """Time every backend on every type and T."""
    args = parse_args()
    torch.set_flush_denormal(True)
    keep_memory()
    print("| type | T | backend | ms | ratio | of a copy's time |\n|---|---|---|---|---|---|")
    for name in args.dtypes:
        for steps in args.time_steps:
            shape = (steps, args.neurons)
            x = 2 * torch.randn(shape, device=args.device, dtype=DTYPES[name])
            runs, source = {}, x.new_empty(5, x.numel() // 2)  # a copy reads and writes
            target = torch.empty_like(source)
            runs["copy"] = lambda target=target, source=source: target.copy_(source)
            for backend in (b for b in BACKENDS if b != "auto"):
                step = step_of(LIF(backend=backend), x.detach().requires_grad_())
                try:
                    step()
                except (RuntimeError, ImportError) as error:
                    print(f"{backend}: {str(error).splitlines()[0]}")
                    continue
                runs[backend] = step
            times = interleave(runs, args.rounds, args.device)
            for key in runs:
                ratio, copies = times["torch"] / times[key], times[key] / times["copy"]
                print(f"| {name} | {steps} | {key} | {1e3 * times[key]:.2f} | ", end="")
                print(f"{ratio:.2f} | {copies:.2f} |", flush=True)
    if args.device == "cpu" and library.is_available():
        print("\n| float32 | T | ms | ratio |\n|---|---|---|---|")
        for steps in args.time_steps:
            time_norms(steps, args)


if __name__ == "__main__":
    main()
