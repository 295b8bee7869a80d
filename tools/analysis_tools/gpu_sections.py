"""What ``benchmark_gpu.py`` measures, one function a section."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import torch
from gpu_bench import Bench
from gpu_layers import layers, neurons
from gpu_trainings import make_plain, plainly, train_through_the_runner
from timing import time_call
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mmspike import fused
from mmspike.backbones import MetaSpikeFormer
from mmspike.deploy import switch_to_deploy
from mmspike.fused.switch import CUDA_VARIABLE

KERNELS = "GPU kernels"
"""In the name of a way that MMSPIKE_FUSED_CUDA=1 switches on."""


class Features(nn.Module):
    """A model whose features are its backbone's maps."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def extract_feat(self, images: Tensor) -> tuple[Tensor, ...]:
        """See mmdet."""
        return self.backbone(images)


def backbone(bench: Bench) -> None:
    """The 15M backbone: training steps, inference, the longest kernels of a step."""
    for steps in (1, 4):
        torch.manual_seed(0)
        model = MetaSpikeFormer(bench.arch, time_steps=steps, attn_init_size=bench.size)
        model = model.to(bench.device)
        images = torch.randn(bench.images, 3, *bench.size, device=bench.device)
        _learn_statistics(model, images, bench)
        _time_training(model, images, steps, bench)
        _time_inference(model, images, steps, bench)


def _learn_statistics(model: nn.Module, images: Tensor, bench: Bench) -> None:
    """Give batch norms the statistics of the images, so that neurons fire in evaluation too."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad(), bench.autocast():
        model.train()(images)
    for norm in norms:
        norm.momentum = 0.1


def _time_training(model: nn.Module, images: Tensor, steps: int, bench: Bench) -> None:
    def step_of(net: nn.Module) -> Callable[[], None]:
        def step() -> None:
            net.zero_grad(set_to_none=True)
            with bench.autocast():
                loss = sum(y.float().square().mean() for y in net.extract_feat(images))
            (2.0**10 * loss).backward()

        return step

    def graphs(net: nn.Module) -> nn.Module:
        net.extract_feat = fused.GraphedFeatures(net, warmup=2)
        return net

    ways = {"eager": make_plain, "ours": lambda net: net, "ours, CUDA graphs": graphs}
    ways |= {f"{way}, {KERNELS}": ways[way] for way in ("ours", "ours, CUDA graphs")}
    for way, change in ways.items():
        with bench.guarded("backbone", f"training step, {way}, T = {steps}"), switched(way):
            before = 0 if bench.dry else torch.cuda.memory_reserved()
            net = change(Features(copy.deepcopy(model)))
            step = step_of(net)
            row = bench.time(step)
            if "CUDA graphs" in way and not bench.dry:  # the recording's memory stays
                torch.cuda.empty_cache()
                row["mib"] = round((torch.cuda.memory_reserved() - before) / 2**20)
                if not net.extract_feat.replays:
                    raise RuntimeError("nothing was recorded")
            bench.note("backbone", what="training step, backbone", T=steps, way=way, **row)
            if way in ("ours", f"ours, {KERNELS}"):
                _profile(step, "training step, backbone", steps, way, bench)


def _time_inference(model: nn.Module, images: Tensor, steps: int, bench: Bench) -> None:
    model = copy.deepcopy(model).eval()
    deployed = copy.deepcopy(model)
    switch_to_deploy(deployed)

    def graphs(net: nn.Module) -> Callable[[Tensor], object]:
        return fused.GraphedFeatures(Features(net), warmup=2)

    half = copy.deepcopy(deployed).to(bench.dtype)
    ways = {
        "eager": (make_plain(copy.deepcopy(model)), True),
        "ours": (model, True),
        "deployed": (deployed, True),
        "deployed, half weights": (half, False),
        "deployed, half weights, CUDA graphs": (graphs(half), False),
        f"deployed, half weights, {KERNELS}": (half, False),
        f"deployed, half weights, CUDA graphs, {KERNELS}": (graphs(half), False),
    }
    for way, (net, mixed) in ways.items():
        with (
            bench.guarded("backbone", f"inference, {way}, T = {steps}"),
            switched(way),
            torch.no_grad(),
            torch.autocast(bench.device, bench.dtype, enabled=mixed),
        ):
            x = images if mixed else images.to(bench.dtype)
            row = bench.time(lambda net=net, x=x: net(x))
            bench.note("backbone", what="inference, backbone", T=steps, way=way, **row)
            if way in ("deployed, half weights", f"deployed, half weights, {KERNELS}"):
                _profile(lambda net=net, x=x: net(x), "inference, backbone", steps, way, bench)


@contextmanager
def switched(way: str) -> Iterator[None]:
    """Run plainly, or with the fast paths that a way names."""
    with ExitStack() as stack:
        if way == "eager":
            stack.enter_context(plainly())
        if KERNELS in way:
            stack.enter_context(mock.patch.dict(os.environ, {CUDA_VARIABLE: "1"}))
        yield


def _profile(run: Callable[[], object], what: str, steps: int, way: str, bench: Bench) -> None:
    """Note launches, the time of all kernels, and the ten longest."""
    activities = [ProfilerActivity.CPU] + ([] if bench.dry else [ProfilerActivity.CUDA])
    with profile(activities=activities) as result:
        time_call(run, bench.device)
    events = result.key_averages()
    if bench.dry:
        found = [(e.key, e.self_cpu_time_total, e.count) for e in events]
    else:
        cuda = torch.autograd.DeviceType.CUDA
        found = [
            (e.key, e.self_device_time_total, e.count) for e in events if e.device_type == cuda
        ]
    found.sort(key=lambda row: -row[1])
    launches = sum(e.count for e in events if "LaunchKernel" in e.key)
    bench.note(
        "backbone",
        what=f"profile of {what}",
        T=steps,
        way=way,
        launches=launches,
        all_ms=round(sum(us for _, us, _ in found) / 1e3, 2),
        kernels=[(name[:100], round(us / 1e3, 3), count) for name, us, count in found[:10]],
    )


def tests(bench: Bench) -> None:
    """The tests that need a GPU, in processes side by side."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"]
    workers = str(min(12, max(2, (os.cpu_count() or 2) - 2)))
    command += ["--collect-only"] if bench.dry else ["-n", workers, "--dist", "worksteal"]
    start, log = time.monotonic(), bench.rows.with_suffix(".log")
    with log.open("w") as file:
        root = Path(__file__).parents[2]
        status = subprocess.call(command, cwd=root, stdout=file, stderr=subprocess.STDOUT)
    lines = log.read_text().strip().splitlines() or [""]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    seconds = round(time.monotonic() - start, 1)
    bench.note("tests", what="pytest -m gpu", last=lines[-1], failed=failed, seconds=seconds)
    if status:
        raise SystemExit(f"pytest ended with status {status}")


def detector(bench: Bench) -> None:
    """Training steps of Mask R-CNN through mmengine's Runner."""
    train_through_the_runner(bench, "detector", "mask_rcnn_metaspike_coco.py", (1,))


def segmentor(bench: Bench) -> None:
    """Training steps of Semantic FPN through mmengine's Runner."""
    train_through_the_runner(bench, "segmentor", "semantic_fpn_metaspike_ade20k.py", (1, 4))


def run(section: str, rows: Path, dry: bool) -> None:
    """Run a section; its measurements go to the file, line by line."""
    torch.manual_seed(0)
    functions = (backbone, detector, segmentor, layers, neurons, tests)
    {f.__name__: f for f in functions}[section](Bench(rows, dry))
