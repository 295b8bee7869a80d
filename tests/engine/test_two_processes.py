"""Runs of two processes on CPUs, without accelerators, as one machine or as two."""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
import time

import pytest
import torch
from torch.distributed.run import get_args_parser

from mmspike.checkpoints import read_checkpoint
from tests.conftest import ROOT
from tests.engine.test_exact_resume import VALIDATE, differences
from tests.engine.tiny import write_config
from tests.tools.helpers import ranks, run, run_together

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="those of GPUs are mmengine's")

# After a step from rest, the optimizer's momentum is the gradient.
GRADIENT = """
optim_wrapper = dict(
    _delete_=True, type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1, momentum=0.9)
)
param_scheduler = []
train_cfg = dict(max_iters=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""
PLAIN = """
model = dict(backbone=dict(drop_path_rate=0.0), decode_head=dict(dropout_ratio=0.0))
sync_bn = "torch"
"""
IN_ORDER = """
train_dataloader = dict(batch_size=1, sampler=dict(shuffle=False))
"""


def gradient(config, work_dir, *options, processes=1):
    """Train one step and return the gradient, as one vector."""
    args = ["--work-dir", work_dir]
    args += ["--cfg-options", *options] if options else []
    if processes == 1:
        run("train.py", config, *args)
    else:
        run_both("train.py", config, *args)
    state = read_checkpoint(work_dir / "iter_1.pth").content["optimizer"]["state"]
    return torch.cat([s["momentum_buffer"].flatten() for s in state.values()])


def run_both(tool, *args):
    """Run a tool in two processes; what each printed."""
    results = run_together(tool, *args, "--launcher", "pytorch", environments=ranks())
    for text, code in results:
        assert code == 0, text[-6000:]
    return [text for text, _ in results]


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_synchronised_norms_give_the_gradient_of_the_whole_batch(tiny_shapes, tmp_path):
    """Flips included: random numbers follow a sample's place in the whole batch."""
    config = write_config(tmp_path / "config.py", "segmentor", tiny_shapes, GRADIENT, PLAIN)
    size = "train_dataloader.batch_size"
    one = gradient(config, tmp_path / "one", f"{size}=4")
    two = gradient(config, tmp_path / "two", f"{size}=2", processes=2)
    assert distance(two, one) < 1e-4
    apart = gradient(config, tmp_path / "apart", f"{size}=2", "sync_bn=None", processes=2)
    assert distance(apart, one) > 1e-2


def test_a_detectors_gradient_is_the_mean_over_processes(tiny_shapes, tmp_path):
    config = write_config(tmp_path / "config.py", "detector", tiny_shapes, GRADIENT, IN_ORDER)
    still = "train_dataloader.dataset.pipeline.3.prob=0.0"
    one = [
        gradient(config, tmp_path / str(n), still, f"train_dataloader.dataset.indices=[{n}]")
        for n in range(2)
    ]
    two = gradient(config, tmp_path / "two", still, processes=2)
    assert distance(two, sum(one) / 2) < 1e-4
    assert distance(two, one[0]) > 1e-2


def launch(script, *args, node):
    """Start a script of several processes, as a user does, as one of several nodes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **node}
    environment["PATH"] = f"{os.path.dirname(sys.executable)}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        [ROOT / "tools" / script, *map(str, args)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.parametrize(
    ("script", "files"),
    [("dist_train.sh", ["my config.py"]), ("dist_test.sh", ["config.py", "my checkpoint.pth"])],
)
def test_scripts_start_processes_on_this_machine(script, files, tmp_path):
    """What they hand to torch's launcher, read by its own parser."""
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    args, path = ["--cfg-options", "a=1 2"], f"{tmp_path}:/usr/bin:/bin"
    script = ROOT / "tools" / script
    done = subprocess.run(
        [script, *files, "2", *args], env={"PATH": path}, stdout=subprocess.PIPE, text=True
    )
    module, launcher, *given = done.stdout.splitlines()
    assert (done.returncode, module, launcher) == (0, "-m", "torch.distributed.run")
    given = get_args_parser().parse_args(given)
    assert (given.nnodes, given.nproc_per_node) == ("1", "2")
    assert (given.node_rank, given.master_addr, given.master_port) == (0, "127.0.0.1", 29500)
    tool = script.name.replace("dist_", "").replace(".sh", ".py")
    assert given.training_script == str(ROOT / "tools" / tool)
    assert given.training_script_args == [*files, "--launcher", "pytorch", *args]
    done = subprocess.run([script, *files], env={"PATH": path}, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert f"tools/{script.name} CONFIG" in done.stderr


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@pytest.fixture(scope="module")
def detector(tiny_shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    config = write_config(folder / "config.py", "detector", tiny_shapes)
    run("train.py", config, "--work-dir", folder, "--cfg-options", "train_cfg.max_iters=2")
    return config, folder / "iter_2.pth"


def test_each_image_is_evaluated_once(detector, tmp_path):
    """Of five images, two processes get three each, one of them twice."""
    config, checkpoint = detector
    args = ["test.py", config, checkpoint, "--work-dir", tmp_path, "--out"]
    one = run(*args, tmp_path / "one.pkl")
    two, _ = run_both(*args, tmp_path / "two.pkl")
    first, second = (pickle.loads((tmp_path / f"{n}.pkl").read_bytes()) for n in ("one", "two"))
    assert [p["img_id"] for p in second] == [p["img_id"] for p in first]
    assert len({p["img_id"] for p in second}) == 5
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a["pred_instances"]["scores"], b["pred_instances"]["scores"])
        torch.testing.assert_close(a["pred_instances"]["bboxes"], b["pred_instances"]["bboxes"])
    numbers = [re.findall(r"coco/(\w+): (\S+)", text) for text in (one, two)]
    assert numbers[0] == numbers[1] != []


@pytest.mark.slow
def test_a_killed_rank_ends_both_nodes_by_name_and_one_node_resumes_the_run(tiny_shapes, tmp_path):
    config = write_config(tmp_path / "config.py", "segmentor", tiny_shapes)
    kill = [{"type": "KillAt", "iteration": 5, "rank": 1}]
    killed = write_config(tmp_path / "killed.py", "segmentor", tiny_shapes, custom_hooks=kill)
    args = ["--work-dir", tmp_path / "work"]
    nodes = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "PORT": free_port()}
    start = time.monotonic()
    scripts = [
        launch("dist_train.sh", killed, 1, *args, node={**nodes, "NODE_RANK": rank})
        for rank in ("0", "1")
    ]
    texts = [script.communicate(timeout=150)[0] for script in scripts]
    assert time.monotonic() - start < 150  # torch waits 30 minutes for a process that is silent
    assert all(script.returncode != 0 for script in scripts)
    assert re.search(r"rank +: 1 \(local_rank: 0\)", texts[1]), texts[1][-6000:]
    assert "Signal 9 (SIGKILL) received" in texts[1]

    run_both("train.py", config, *args, "--resume")
    say = write_config(
        tmp_path / "say.py",
        "segmentor",
        tiny_shapes,
        VALIDATE,
        custom_hooks=[{"type": "SayBuffers"}],
    )
    texts = run_both("train.py", say, "--work-dir", tmp_path / "whole")
    evaluated_with = [re.findall("buffers: .*", text) for text in texts]
    assert len(set(evaluated_with[0])) == 2
    assert evaluated_with[0] == evaluated_with[1]
    assert differences(tmp_path / "whole/iter_8.pth", tmp_path / "work/iter_8.pth") == []
