"""Time what counting costs: inference with and without it, interleaved in one run."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from datetime import date
from statistics import median

import torch
from mmengine.config import DictAction

from mmspike.energy import Conventions, EnergyCounter
from mmspike.engine.command_line import check_device, read_config_file
from mmspike.engine.configs import use_scope
from mmspike.engine.inputs import build_model, estimate_norms, noise_batch
from mmspike.engine.misfits import misfits_in_words


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file; its model gets random weights")
    parser.add_argument("--shape", nargs=2, type=int, default=(512, 512), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, after one of each (5)")
    parser.add_argument("--borders", choices=["formula", "exact"], default="formula")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    return parser.parse_args()


def time_call(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    """Time both, print the medians and their ratio."""
    args = parse_args()
    if args.rounds < 1:
        raise SystemExit(f"benchmark_energy: --rounds must be at least 1, got {args.rounds}")
    check_device("benchmark_energy", args.device)
    cfg = read_config_file("benchmark_energy", args.config, args.cfg_options)
    use_scope(cfg)
    torch.manual_seed(0)
    with misfits_in_words("benchmark_energy", cfg):
        model = build_model(cfg, None, args.device)
        batch = noise_batch(cfg, tuple(args.shape))
        estimate_norms(model, [batch])

    def run() -> None:
        model.test_step(batch)

    seconds: dict[str, list[float]] = {"plain": [], "counted": []}
    for i in range(args.rounds + 1):
        plain = time_call(run)
        with EnergyCounter(model, Conventions(borders=args.borders)):  # open for many images
            counted = time_call(run)
        if i:
            seconds["plain"].append(plain)
            seconds["counted"].append(counted)
    plain, slow = median(seconds["plain"]), median(seconds["counted"])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    print(
        f"{args.config}, {args.shape[0]} x {args.shape[1]}, borders {args.borders}: inference "
        f"{1e3 * plain:.0f} ms, with counting {1e3 * slow:.0f} ms, {slow / plain:.2f} times\n"
        f"{date.today()}, {device}, {torch.get_num_threads()} CPU threads, torch "
        f"{torch.__version__}, median of {args.rounds}"
    )


if __name__ == "__main__":
    main()
