"""Runs the command-line tools, each in a process of its own.

Those processes are forked from one that has imported torch and the hosts, which takes longer than
most tools do. This package they import themselves.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import resource
import runpy
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import tests.remembered  # noqa: F401
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
            "tests.remembered",
        ]
    )
TIME_LIMIT = 300
"""Seconds after which a tool is taken to hang."""


def run(tool, *args, ok=True, errors=None):
    """Run ``tools/<tool>`` and return what it prints.

    Args:
        tool: The script, relative to ``tools``.
        *args: Its arguments.
        ok: Whether it is to succeed.
        errors: File that its standard error is added to; ``None`` returns it with the rest.
    """
    ((text, code),) = run_together(tool, *args, errors=errors)
    assert code >= 0, f"{tool} died of signal {-code}: {text[-6000:]}"
    assert (code == 0) is ok, text[-6000:]
    return text


def run_together(tool, *args, environments=({},), file_size=None, errors=None):
    """Run ``tools/<tool>`` in several processes at once; return what each prints, and its status.

    Args:
        tool: The script, relative to ``tools``.
        *args: Its arguments.
        environments: A process's additions to the environment, for each process.
        file_size: Bytes beyond which a file cannot be written, as on a full disk.
        errors: File that their standard error is added to; ``None`` returns it with the rest.
    """
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"out_{number}.txt" for number in range(len(environments))]
        args = [str(a) for a in args]
        processes = [
            _PROCESSES.Process(target=_main, args=(tool, args, out, environment, file_size, errors))
            for out, environment in zip(outs, environments, strict=True)
        ]
        for out, process in zip(outs, processes, strict=True):
            out.touch()
            process.start()
        try:
            end = time.monotonic() + TIME_LIMIT
            for process in processes:
                process.join(end - time.monotonic())
            results = [
                (out.read_text(), p.exitcode) for out, p in zip(outs, processes, strict=True)
            ]
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with all that it started
                process.join()
    for text, code in results:
        assert code is not None, f"{tool} took more than {TIME_LIMIT} s: {text[-6000:]}"
    return results


def ranks(count=2):
    """Environments of the processes of a distributed run, as torch's launcher sets them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _main(tool, args, out, environment, file_size, errors):
    os.setsid()  # a group of its own
    gc.freeze()  # what was imported before; the hosts collect garbage for every data set
    np.random.seed()  # as a process that was not forked has it
    random.seed()
    multiprocessing.set_start_method(None, force=True)
    os.environ.update(environment)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    with open(out, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if errors is not None:
        with open(errors, "a") as file:
            os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    path = ROOT / "tools" / tool
    sys.argv = [str(path), *args]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
