"""Runs the command-line tools, each in a process of its own.

Those processes are forked from one that has imported torch and the hosts, which takes longer than
most tools do. This package they import themselves.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path

import torch

from tests.conftest import ROOT

# CUDA does not survive a fork.
_PROCESSES = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
if not torch.cuda.is_available():
    _PROCESSES.set_forkserver_preload(
        [
            "torch._dynamo",
            "mmdet.apis",
            "mmdet.models",
            "mmseg.apis",
            "matplotlib.pyplot",
            "spikingjelly.activation_based.neuron",
        ]
    )
TIME_LIMIT = 300
"""Seconds after which a tool is taken to hang."""


def run(tool, *args, ok=True):
    """Run ``tools/<tool>`` and return what it prints.

    Args:
        tool: The script, relative to ``tools``.
        *args: Its arguments.
        ok: Whether it is to succeed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.txt"
        out.touch()
        process = _PROCESSES.Process(target=_main, args=(tool, [str(a) for a in args], out))
        process.start()
        try:
            process.join(TIME_LIMIT)
            text, code = out.read_text(), process.exitcode
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with all that it started
            process.join()
    assert code is not None, f"{tool} took more than {TIME_LIMIT} s: {text[-6000:]}"
    assert code >= 0, f"{tool} died of signal {-code}: {text[-6000:]}"
    assert (code == 0) is ok, text[-6000:]
    return text


def _main(tool, args, out):
    os.setsid()  # a group of its own
    with open(out, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    path = ROOT / "tools" / tool
    sys.argv = [str(path), *args]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
