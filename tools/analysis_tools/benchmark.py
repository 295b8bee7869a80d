"""Time inference and training against a plain implementation, interleaved in one run.

Three ways to compute the same: "eager", with spikingjelly's own neurons (on a GPU, its fastest
backend), the image repeated T times and nothing folded; "training", ours as it is trained;
"deployed", ours after switch_to_deploy. Prints a table in Markdown and writes a JSON file;
--write-docs puts the table into docs/benchmarks.md, from which write_claims.py takes the README's
numbers. Without options, it makes all that is there.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from plain_baseline import make_eager
from timing import added_memory, interleave, keep_memory
from torch import Tensor, nn
from torch.profiler import profile

import mmspike.registry  # noqa: F401  makes "mmseg::" known in configs
from mmspike.backbones import MetaSpikeFormer
from mmspike.deploy import switch_to_deploy
from mmspike.engine.inputs import build_model, estimate_norms, noise_batch
from mmspike.native import library

CONFIGS = {
    "semantic_fpn": "configs/semantic_fpn_metaspike_ade20k.py",
    "mask_rcnn": "configs/mask_rcnn_metaspike_coco.py",
}
HEADINGS = (
    "model",
    "size",
    "T",
    "images",
    "what",
    "eager, ms",
    "training path, ms",
    "ratio",
    "deployed, ms",
    "ratio",
    "share of matrix rate",
    "peak memory, eager, MiB",
    "ours, MiB",
    "share",
)
HEAD = "| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS)
DOCS = Path(__file__).parents[2] / "docs/benchmarks.md"


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        default=["backbone", *CONFIGS],
        choices=["backbone", *CONFIGS],
        help="what to time, with the 15M backbone (all)",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["224x224", "512x512", "800x1333"],
        metavar="HxW",
        help="sizes (224x224 512x512 800x1333)",
    )
    parser.add_argument("--time-steps", nargs="+", type=int, default=[1, 4], help="T (1 4)")
    parser.add_argument(
        "--batch-size", type=int, help="images of the backbone (4 at 224x224, else 1)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, after one of each (3)")
    parser.add_argument(
        "--train-sizes",
        nargs="*",
        default=["224x224"],
        metavar="HxW",
        help="those of the sizes at which the backbone is trained, too (224x224)",
    )
    parser.add_argument("--amp", action="store_true", help="autocast, to bfloat16 on a CPU")
    parser.add_argument("--write-docs", action="store_true", help="write the docs' table")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="print where the time of the deployed model and of our training step goes, too",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmark.json"))
    parser.add_argument("--memory-of", choices=["eager", "training"], help=argparse.SUPPRESS)
    return parser.parse_args()


def images_at(args: argparse.Namespace, name: str, size: str) -> int:
    """Images of a batch."""
    if name != "backbone":
        return 1
    return args.batch_size or (4 if size == "224x224" else 1)


def build(name: str, size: tuple[int, int], steps: int, batch: int, device: str) -> tuple:
    """A model with random weights that fires, and what to call it with.

    Returns:
        The model, ``infer(model)`` and, for the backbone, ``train(model)``.
    """
    torch.manual_seed(0)
    if name == "backbone":
        model = MetaSpikeFormer("15M", time_steps=steps, attn_init_size=size).to(device)
        image = torch.randn(batch, 3, *size, device=device)

        class Norms(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def test_step(self, data: dict) -> Any:
                return self.model(data["inputs"])

        estimate_norms(Norms(), [{"inputs": image}])
        return model, lambda m: m(image), lambda m: train_step(m, image)
    cfg = Config.fromfile(CONFIGS[name])
    cfg.model.backbone.time_steps = steps
    cfg.model.backbone.attn_init_size = size
    init_default_scope(cfg.default_scope)
    model, data = build_model(cfg, None, device), noise_batch(cfg, size)
    estimate_norms(model, [data])
    return model, lambda m: m.test_step(data), None


def train_step(model: nn.Module, image: Tensor) -> None:
    """Forward and backward, without the optimizer."""
    model.zero_grad(set_to_none=True)
    sum(y.square().mean() for y in model(image)).backward()


def count_macs(model: nn.Module, infer: Callable) -> float:
    """Multiply-accumulates that the plain implementation executes in one call."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        infer(model)
    return counter.get_total_flops() / 2


def print_profile(run: Callable[[], object], device: str, rows: int = 15) -> None:
    """Print to stderr which operators and kernels take the longest in a call, by themselves."""
    with profile() as result:
        run()
    key = "self_device_time_total" if device.startswith("cuda") else "self_cpu_time_total"
    print(result.key_averages().table(sort_by=key, row_limit=rows), file=sys.stderr, flush=True)


def memory_of(args: argparse.Namespace, way: str, size: str, steps: int) -> float:
    """MiB that a training step of the backbone adds, measured in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "memory.json"
        command = [sys.executable, __file__, "--memory-of", way, "--sizes", size]
        batch = images_at(args, "backbone", size)
        command += ["--time-steps", str(steps), "--batch-size", str(batch)]
        command += ["--amp"] if args.amp else []
        command += ["--device", args.device, "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True)
        return json.loads(out.read_text())


def measure_memory(args: argparse.Namespace) -> None:
    """Write the memory that a training step adds."""
    size = read_size(args.sizes[0])
    model, _, train = build("backbone", size, args.time_steps[0], args.batch_size, args.device)
    if args.memory_of == "eager":
        make_eager(model)
    model.train()
    with autocast(args):
        added = added_memory(lambda: train(model), args.device)
    args.out.write_text(json.dumps(added))


def product(matrix: Tensor) -> Tensor:
    """The square of a matrix, in float32 whatever autocast says."""
    with torch.autocast(matrix.device.type, enabled=False):
        return matrix @ matrix


def autocast(args: argparse.Namespace) -> AbstractContextManager:
    """Mixed precision, if it was asked for."""
    device = args.device.split(":")[0]
    dtype = torch.bfloat16 if device == "cpu" else torch.float16
    return torch.autocast(device, dtype, enabled=args.amp)


def read_size(text: str) -> tuple[int, int]:
    """Height and width from ``HxW``."""
    try:
        height, width = (int(n) for n in text.split("x"))
    except ValueError:
        raise SystemExit(f"benchmark: --sizes takes HxW such as 224x224, got {text!r}") from None
    return height, width


def measure(args: argparse.Namespace, name: str, size: str, steps: int) -> list[dict[str, Any]]:
    """Rows of one model at one size: inference, and training of the backbone."""
    batch = images_at(args, name, size)
    model, infer, train = build(name, read_size(size), steps, batch, args.device)
    eager, deployed = make_eager(copy.deepcopy(model)), copy.deepcopy(model)
    switch_to_deploy(deployed)
    matrix = torch.randn(2048, 2048, device=args.device)
    with torch.no_grad(), autocast(args):
        runs = {
            "eager": lambda: infer(eager),
            "training": lambda: infer(model),
            "deployed": lambda: infer(deployed),
            "matrix": lambda: product(matrix),
        }
        seconds = interleave(runs, args.rounds, args.device)
        if args.profile:
            print_profile(runs["deployed"], args.device)
    macs = count_macs(eager, infer)
    common = {"model": name, "size": size, "time_steps": steps, "images": batch, "macs": macs}
    share = macs / seconds["deployed"] / (2048**3 / seconds["matrix"])
    rows = [{**common, "what": "inference", **seconds, "share": share}]
    if train is not None and size in args.train_sizes:
        eager.train(), model.train()
        runs = {"eager": lambda: train(eager), "training": lambda: train(model)}
        with autocast(args):
            seconds = interleave(runs, args.rounds, args.device)
            if args.profile:
                print_profile(runs["training"], args.device)
        memory = {f"{way}_mib": memory_of(args, way, size, steps) for way in runs}
        rows.append({**common, "what": "training step", **seconds, **memory})
    return rows


def write_docs(machine: str, rows: list[dict[str, Any]]) -> None:
    """Put the table between the marks in docs/benchmarks.md.

    Raises:
        SystemExit: If the marks are not there.
    """
    text = DOCS.read_text()
    begin, end = (f"<!-- {mark} of the table -->" for mark in ("begin", "end"))
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"benchmark: {DOCS} needs one line {begin!r} and one {end!r}")
    table = "\n".join([HEAD, *map(format_row, rows)])
    before, after = text.split(begin)[0], text.split(end)[1]
    DOCS.write_text(f"{before}{begin}\n{machine}:\n\n{table}\n{end}{after}")


def format_row(row: dict[str, Any]) -> str:
    """A line of the table."""
    eager, ours, deployed = row["eager"], row["training"], row.get("deployed")
    cells = [row["model"], row["size"], row["time_steps"], row["images"], row["what"]]
    cells += [f"{1e3 * eager:.0f}", f"{1e3 * ours:.0f}", f"{eager / ours:.2f}"]
    cells += [f"{1e3 * deployed:.0f}", f"{eager / deployed:.2f}"] if deployed else ["", ""]
    cells += [f"{100 * row['share']:.0f} %"] if deployed else [""]
    if "eager_mib" in row:
        a, b = row["eager_mib"], row["training_mib"]
        cells += [f"{a:.0f}", f"{b:.0f}", f"{100 * b / a:.0f} %"]
    else:
        cells += ["", "", ""]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Time everything that was asked for."""
    args = parse_args()
    torch.set_flush_denormal(True)
    if args.memory_of:
        measure_memory(args)
        return
    keep_memory()  # or each way would pay for the memory that the one before gave back
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    machine = (
        f"{date.today()}, {device} ({platform.machine()}), {torch.get_num_threads()} CPU threads, "
        f"kernels: {library.level() if library.is_available() else 'not compiled'}, "
        f"{'autocast, ' if args.amp else ''}torch {torch.__version__}, "
        f"spikingjelly {version('spikingjelly')}, Python {platform.python_version()}; "
        f"medians of {args.rounds}"
    )
    print(machine, flush=True)
    print(HEAD, flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for size, name, steps in itertools.product(args.sizes, args.models, args.time_steps):
        for row in measure(args, name, size, steps):
            rows.append(row)
            print(format_row(row), flush=True)
        args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
        if args.write_docs:
            write_docs(machine, rows)
    print(args.out)


if __name__ == "__main__":
    main()
