"""Time the neurons alone, forward and backward, on every backend, interleaved in one run.

Ratios are against the reference (backend "torch"). The last column compares with a copy of the
bytes that forward and backward must touch: the input twice, spikes, their gradient, the input's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from timing import interleave, keep_memory
from torch import Tensor

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


def step_of(backend: str, x: Tensor) -> Callable[[], object]:
    """Forward and backward of a neuron."""
    neuron, grad = LIF(backend=backend), torch.ones_like(x)

    def step() -> object:
        return torch.autograd.grad(neuron(x), x, grad)

    return step


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
                step = step_of(backend, x.detach().requires_grad_())
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


if __name__ == "__main__":
    main()
