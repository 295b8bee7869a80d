"""Prove and time everything that needs a GPU, in under four minutes (``make gpu``).

Each section runs in a process of its own with a time limit, so that one that fails or hangs loses
nothing but itself; the most valuable come first. All are against the plain implementation in the
same process: "eager" has spikingjelly's own neurons and nothing fused. Lines are printed, and
written to the JSON file, as they come; --write-docs puts the table into docs/benchmarks.md.
Without a GPU it ends with status 2; --dry-run runs everything at tiny sizes on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

SECTIONS = {  # seconds that each may take
    "backbone": 95,
    "detector": 35,
    "segmentor": 30,
    "layers": 15,
    "neurons": 10,
    "tests": 50,
}
DOCS = Path(__file__).parents[2] / "docs/benchmarks.md"
MARKS = ("<!-- begin of the GPU table -->", "<!-- end of the GPU table -->")
HEAD = (
    "| what | T | eager, ms | this, ms | ratio | memory, eager, MiB | this, MiB | share |\n"
    + "|---" * 8
    + "|"
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--budget", type=float, default=235, help="seconds for everything (235)")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmark_gpu.json"))
    parser.add_argument("--write-docs", action="store_true", help="write the docs' table")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on a CPU")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_section(name: str, args: argparse.Namespace, folder: Path, seconds: float) -> list[dict]:
    """Run a section in a process of its own; its rows, and one that says how it ended."""
    rows, start = folder / f"{name}.jsonl", time.monotonic()
    command = [sys.executable, __file__, "--section", name, "--rows", str(rows)]
    command += ["--dry-run"] if args.dry_run else []
    child = subprocess.Popen(command, start_new_session=True)
    try:
        status = child.wait(timeout=seconds)
        ended = "done" if status == 0 else f"failed (status {status})"
    except subprocess.TimeoutExpired:
        ended = f"stopped after {seconds:.0f} s"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)  # with data workers and test processes
            child.wait()
    taken = round(time.monotonic() - start, 1)
    print(f"section {name}: {ended}, {taken} s", flush=True)
    log = rows.with_suffix(".log")
    if ended != "done" and log.exists():
        print(log.read_text()[-2000:], flush=True)
    lines = rows.read_text().splitlines() if rows.exists() else []
    return [json.loads(line) for line in lines] + [
        {"section": name, "ended": ended, "seconds": taken}
    ]


def format_table(rows: list[dict[str, Any]]) -> str:
    """Lines of the table: what was timed in eager and in ours, and every other way after it."""
    timed = [r for r in rows if "ms" in r]
    eager = {(r["what"], r["T"]): r for r in timed if r["way"] == "eager"}
    lines = [HEAD]
    for row in timed:
        plain = eager.get((row["what"], row["T"]))
        if row["way"] == "eager" or plain is None:
            continue
        cells = [f"{row['what']}, {row['way']}", row["T"], f"{plain['ms']:.2f}", f"{row['ms']:.2f}"]
        cells.append(f"{plain['ms'] / row['ms']:.2f}")
        if "mib" in row and "mib" in plain:
            share = 100 * row["mib"] / max(plain["mib"], 1)
            cells += [f"{plain['mib']:.0f}", f"{row['mib']:.0f}", f"{share:.0f} %"]
        else:
            cells += ["", "", ""]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def write_docs(machine: str, rows: list[dict[str, Any]]) -> None:
    """Put the table between the marks in docs/benchmarks.md.

    Raises:
        SystemExit: If the marks are not there.
    """
    text = DOCS.read_text()
    if any(text.count(mark) != 1 for mark in MARKS):
        raise SystemExit(f"benchmark_gpu: {DOCS} needs one line each of {MARKS}")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    DOCS.write_text(f"{before}{MARKS[0]}\n{machine}:\n\n{format_table(rows)}\n{MARKS[1]}{after}")


def describe_machine(dry_run: bool) -> str:
    """Date, device and versions."""
    device = "CPU, dry run" if dry_run else torch.cuda.get_device_name()
    return (
        f"{date.today()}, {device}, {os.cpu_count()} CPU cores ({platform.machine()}), "
        f"torch {torch.__version__}, spikingjelly {version('spikingjelly')}, "
        f"Python {platform.python_version()}; milliseconds, medians"
    )


def main() -> int:
    """Run the sections; 2 without a GPU, 1 if one did not end well."""
    args = parse_args()
    if not torch.cuda.is_available() and not args.dry_run:
        print("benchmark_gpu: there is no GPU here (torch.cuda.is_available() is False)")
        return 2
    if args.section:
        import gpu_sections

        gpu_sections.run(args.section, args.rows, args.dry_run)
        return 0
    end, machine = time.monotonic() + args.budget, describe_machine(args.dry_run)
    print(machine, flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            seconds = min(SECTIONS[name], end - time.monotonic())
            if args.dry_run:
                seconds = args.budget
            if seconds < 5:
                print(f"section {name}: no time left", flush=True)
                rows.append({"section": name, "ended": "no time left", "seconds": 0})
                continue
            rows += run_section(name, args, Path(folder), seconds)
            args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(format_table(rows))
    if args.write_docs:
        write_docs(machine, rows)
    print(args.out)
    return int(any("error" in r or r.get("ended", "done") != "done" for r in rows))


if __name__ == "__main__":
    sys.exit(main())
