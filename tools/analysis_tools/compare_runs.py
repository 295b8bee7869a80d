"""What a comparison trains and measures, each run in a process and a folder of its own.

A folder holds the complete config of its run (``<model>.py``), what was printed (``train.log``,
``measure.log``), and, once they are there, ``trained.json`` and ``measured.json``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import multiprocessing
import os
import platform
import re
import runpy
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from training_time import training_minutes

TOOLS = Path(__file__).resolve().parents[1]
_PRELOADED = (
    "mmspike.backbones",
    "mmspike.energy",
    "mmspike.engine.preflight",
    "matplotlib.pyplot",
)
_OF_HOST = {
    "mmdet": ("mmdet.apis", "mmspike.det"),
    "mmseg": ("mmseg.apis", "mmspike.seg"),
    "mmpretrain": ("mmpretrain.apis", "mmspike.cls"),
}
_COLUMNS = 3  # of the rows: those that another version has measured are measured again
_PROGRESS = re.compile(r"((?:Iter|Epoch)\((?:train|val|test)\)\s+\S*\[[^]]*\](?:\[[^]]*\])?)")
_ETA = re.compile(r"eta: ([^ ]+(?: days?, [^ ]+)?)")


@dataclass
class Run:
    """One training of one model, or one checkpoint.

    Attributes:
        name: Name of the model: that of the config, with what it has different.
        config: The config file that was given.
        cfg: Its content, complete.
        is_twin: Whether it is the ANN twin of the config.
        folder: Where all of it lies.
        seed: Seed of the training; ``None`` for a checkpoint that was given.
        checkpoint: Its weights, once they are there.
        twin_of: Names of the models whose ANN twin it is.
    """

    name: str
    config: str
    cfg: Config
    is_twin: bool
    folder: Path
    seed: int | None = None
    checkpoint: Path | None = None
    twin_of: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.name if self.seed is None else f"{self.name}, seed {self.seed}"

    @property
    def file(self) -> Path:
        """Its complete config."""
        return self.folder / f"{self.name}.py"

    @property
    def training(self) -> Path:
        """Work dir of its training, whose runner writes a config of that name, too."""
        return self.folder / "training"


def prepare(run: Run) -> None:
    """Write the config of a run, or find that it is the one that lies there.

    Raises:
        SystemExit: If the folder holds a run with other settings.
    """
    text = run.cfg.pretty_text
    if run.seed is not None and run.file.is_file():
        before = run.file.read_text()
        if before != text:
            lines = difflib.unified_diff(before.splitlines(), text.splitlines(), lineterm="", n=0)
            changed = [x for x in lines if x[0] in "+-" and x[:3] not in ("+++", "---")]
            raise SystemExit(
                f"compare: {run.folder} holds a run with other settings; give another --work-dir, "
                "or remove it. What differs (-: there, +: now):\n" + "\n".join(changed[:12])
            )
    run.folder.mkdir(parents=True, exist_ok=True)
    run.file.write_text(text)


def train(run: Run) -> str:
    """Train, unless it is done already; go on where a training was stopped.

    Returns:
        What happened, in words.

    Raises:
        SystemExit: If the training fails; its last lines are shown.
    """
    note = run.folder / "trained.json"
    if run.checkpoint is None and note.is_file():
        run.checkpoint = run.training / json.loads(note.read_text())["checkpoint"]
    if run.checkpoint is not None:
        if not run.checkpoint.is_file():
            raise SystemExit(f"compare: {run}: no file {run.checkpoint}; remove {note}")
        return "trained already" if run.seed is not None else "given"
    last = run.training / "last_checkpoint"
    args = [run.file, "--work-dir", run.training, *(["--resume"] if last.is_file() else [])]
    start = time.monotonic()
    run_tool("train.py", args, run.folder / "train.log", f"training of {run}")
    if not last.is_file():
        raise SystemExit(
            f"compare: the training of {run} wrote no checkpoint: "
            "default_hooks.checkpoint.interval is larger than the training is long"
        )
    run.checkpoint = run.training / Path(last.read_text().strip()).name
    note.write_text(json.dumps({"checkpoint": run.checkpoint.name, "device": device()}))
    return f"trained in {time.monotonic() - start:.0f} s"


def measure(run: Run, options: Sequence[str]) -> dict[str, Any]:
    """Measure, unless the same was measured already of these weights on this machine.

    Args:
        run: A run with a checkpoint.
        options: Options of ``compare_measures.py``.

    Returns:
        Its row, with ``model``, ``config``, ``is_twin`` and ``seed``, and of its training
        ``train_minutes`` and ``train_device`` (``None`` if that is not known).

    Raises:
        SystemExit: If it fails; its last lines are shown.
    """
    out = run.folder / "measured.json"
    state = run.checkpoint.stat()
    what = {
        "columns": _COLUMNS,
        "options": list(map(str, options)),
        "checkpoint": [str(run.checkpoint), state.st_size, state.st_mtime_ns],
        "config": hashlib.sha256(run.file.read_bytes()).hexdigest(),
        "machine": [platform.node(), torch.__version__, torch.get_num_threads()],
    }
    content = json.loads(out.read_text()) if out.is_file() else {}
    if content.get("what") != what:
        row_file = run.folder / "row.json"
        args = [run.file, run.checkpoint, row_file, *options]
        script = "analysis_tools/compare_measures.py"
        run_tool(script, args, run.folder / "measure.log", f"measurement of {run}")
        content = {"what": what, "row": json.loads(row_file.read_text())}
        out.write_text(json.dumps(content, indent=1) + "\n")
        row_file.unlink()
    about = {"model": run.name, "config": run.config, "is_twin": run.is_twin, "seed": run.seed}
    about |= {"train_minutes": None, "train_device": None}
    if run.seed is not None:
        about["train_minutes"] = training_minutes(run.training)
        about["train_device"] = json.loads((run.folder / "trained.json").read_text()).get("device")
    return about | content["row"]


def device() -> str:
    """What models are trained and timed on here: a GPU, or some threads of a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} CPU thread" + "s" * (threads > 1)


def preload(runs: Iterable[Run]) -> None:
    """Let the processes of these runs start from one that has imported what they share.

    CUDA does not survive a fork: where torch is a CUDA build, they start from nothing.
    """
    modules = list(_PRELOADED)
    for host in sorted({run.cfg.get("default_scope") for run in runs} & _OF_HOST.keys()):
        modules += _OF_HOST[host]
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)


def run_tool(script: str, args: Sequence[Any], log: Path, what: str) -> None:
    """Run a script of ``tools/`` in a process of its own, and show how far it is.

    Args:
        script: The script, relative to ``tools/``.
        args: Its arguments.
        log: File for what it prints.
        what: What it does, in words.

    Raises:
        SystemExit: If it fails.
    """
    context = multiprocessing.get_context("spawn" if torch.version.cuda else "forkserver")
    log.write_text("")
    process = context.Process(target=_main, args=(script, list(map(str, args)), str(log)))
    process.start()
    try:
        while process.is_alive():
            process.join(1.0)
            _show(what, log)
    finally:
        if process.is_alive():  # the user has interrupted this one
            process.terminate()
            process.join()
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    if process.exitcode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(
            f"compare: the {what} failed (exit status {process.exitcode}); what is finished is "
            f"kept, and the same command goes on from there. The end of {log}:\n{tail}"
        )


def _show(what: str, log: Path) -> None:
    """Show the last progress that a log tells, on a terminal."""
    if not sys.stdout.isatty():
        return
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        text = file.read().decode(errors="replace")
    steps, etas = _PROGRESS.findall(text), _ETA.findall(text)
    if steps:
        eta = f", {etas[-1]} left" if etas else ""
        print(f"\r\033[K    {what}: {steps[-1]}{eta}", end="", flush=True)


def _main(script: str, args: list[str], log: str) -> None:
    with open(log, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    path = TOOLS / script
    sys.argv = [str(path), *args]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
