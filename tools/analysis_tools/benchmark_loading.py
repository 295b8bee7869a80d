"""Time and memory of loading a full published checkpoint, against plain ``torch.load``."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from mmspike.backbones import MetaSpikeFormerClassifier
from mmspike.checkpoints.upstream import to_upstream_state_dict

# Each run is a process of its own, since peak memory is a process's; both end with a loaded model.
PREPARE = """
import json, resource, sys, time
import torch
from mmspike.backbones import MetaSpikeFormer
from mmspike.checkpoints import load_pretrained
from mmspike.checkpoints.upstream import translate_state_dict
torch.set_num_threads(int(sys.argv[3]))
model = MetaSpikeFormer(sys.argv[2])
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1024
before, start = peak(), time.perf_counter()
"""
FINISH = """
print(json.dumps({"seconds": time.perf_counter() - start, "mib": peak() - before}))
"""
WAYS = {
    "torch.load": "state = torch.load(sys.argv[1], weights_only=True)['model']\n"
    "model.load_state_dict(translate_state_dict(state))",
    "load_pretrained": "load_pretrained(model, sys.argv[1])",
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="55M", choices=["15M", "31M", "55M"])
    parser.add_argument("--repeats", type=int, default=5, help="runs per way; medians are printed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-optimizer", action="store_true", help="a file of weights alone")
    return parser.parse_args()


def write_checkpoint(file: Path, arch: str, optimizer: bool) -> None:
    """Write a checkpoint like a published one, with random numbers; AdamW keeps two per weight."""
    state = MetaSpikeFormerClassifier(arch=arch).state_dict()
    backbone = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("b")}
    model = to_upstream_state_dict(backbone)
    content = {"model": model, "epoch": 199}
    if optimizer:
        moments = {
            i: {"exp_avg": torch.rand_like(v), "exp_avg_sq": torch.rand_like(v)}
            for i, v in enumerate(t for t in model.values() if t.is_floating_point())
        }
        content["optimizer"] = {"state": moments, "param_groups": []}
    torch.save(content, file)


def main() -> None:
    """Print a table."""
    args = parse_args()
    results = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pth"
        write_checkpoint(file, args.arch, not args.no_optimizer)
        size = file.stat().st_size / 2**20
        for _ in range(args.repeats):  # interleaved
            for way, code in WAYS.items():
                command = [sys.executable, "-c", PREPARE + code + FINISH]
                command += [str(file), args.arch, str(args.threads)]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                results[way].append(json.loads(out.splitlines()[-1]))
    medians = {
        way: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for way, runs in results.items()
    }
    print(
        f"{args.arch}, file of {size:.0f} MiB, {args.threads} threads, torch {torch.__version__}, "
        f"{platform.processor() or platform.machine()}, median of {args.repeats}"
    )
    base = medians["torch.load"]
    print("| way | seconds | ratio | peak memory added, MiB | ratio |\n|---|---|---|---|---|")
    for way, run in medians.items():
        print(
            f"| {way} | {run['seconds']:.2f} | {run['seconds'] / base['seconds']:.2f} "
            f"| {run['mib']:.0f} | {run['mib'] / base['mib']:.2f} |"
        )


if __name__ == "__main__":
    main()
