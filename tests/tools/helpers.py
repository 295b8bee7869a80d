"""Runs the command-line tools as a user does, each in a process of its own.

Those processes are forked from one that has imported the libraries, which takes longer than most
tools do.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from pathlib import Path

from tests.conftest import ROOT

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "mmdet.apis",
        "mmdet.models",
        "mmseg.apis",
        "mmspike.deploy",
        "mmspike.energy.plots",
        "mmspike.engine.testing",
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
        process = _SERVER.Process(target=_main, args=(tool, [str(a) for a in args], out))
        process.start()
        process.join(TIME_LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
        text = out.read_text()
    assert (process.exitcode == 0) is ok, text[-6000:]
    return text


def _main(tool, args, out):
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
