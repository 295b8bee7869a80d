"""What ``benchmark_gpu.py`` measures, one function a section."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_trainings import make_plain, plainly, train_through_the_runner
from timing import time_call
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mmspike import fused
from mmspike.backbones import MetaSpikeFormer
from mmspike.backbones.meta_spikeformer import ChannelMLP, SepConv
from mmspike.deploy import switch_to_deploy
from mmspike.layers.conv import ONE_SIGMA_RATE, run_layers, spike_conv
from mmspike.layers.time import per_step
from mmspike.neurons import LIF

TINY = {"embed_dims": [16, 16, 24, 32], "num_heads": 4, "depths": (1, 1, 1, 1, 1)}


class Bench:
    """Sizes, and what is measured.

    Args:
        rows: File that gets a line of JSON per measurement.
        dry: Whether sizes are tiny, on a CPU.
    """

    def __init__(self, rows: Path, dry: bool) -> None:
        self.rows, self.dry = rows, dry
        self.device = "cpu" if dry else "cuda"
        self.dtype = torch.bfloat16 if dry else torch.float16
        self.arch, self.images = (TINY, 1) if dry else ("15M", 8)
        self.size = (32, 32) if dry else (512, 512)

    def note(self, section: str, **row: Any) -> None:
        """Print a measurement and write it down."""
        row = {"section": section, **row}
        with self.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print("  " + ", ".join(f"{k} {v}" for k, v in row.items() if k != "kernels"), flush=True)
        for name, ms, count in row.get("kernels", ()):
            print(f"    {ms:8.3f} ms {count:5d} x {name}", flush=True)

    @contextmanager
    def guarded(self, section: str, what: str) -> Iterator[None]:
        """Note what fails inside, and go on."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.note(section, what=what, error=f"{type(error).__name__}: {str(error)[:300]}")
        if not self.dry:
            torch.cuda.empty_cache()

    def time(self, run: Callable[[], object], seconds: float = 1.0) -> dict[str, float]:
        """Median milliseconds of some calls, after four; MiB that a call adds at its peak."""
        for _ in range(1 if self.dry else 4):
            one = time_call(run, self.device)
        rounds = 2 if self.dry else int(max(5, min(30, seconds / one)))
        ms = 1e3 * median(time_call(run, self.device) for _ in range(rounds))
        return {"ms": round(ms, 3), **self.memory(run)}

    def memory(self, run: Callable[[], object]) -> dict[str, float]:
        """MiB that a call adds at its peak; nothing on a CPU."""
        if self.dry:
            return {}
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return {"mib": round((torch.cuda.max_memory_allocated() - before) / 2**20)}

    def autocast(self) -> torch.autocast:
        """Mixed precision."""
        return torch.autocast(self.device, self.dtype)


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
    for way, change in ways.items():
        with bench.guarded("backbone", f"training step, {way}, T = {steps}"):
            before = 0 if bench.dry else torch.cuda.memory_reserved()
            net = change(Features(copy.deepcopy(model)))
            step = step_of(net)
            with plainly() if way == "eager" else nullcontext():
                row = bench.time(step)
            if way == "ours, CUDA graphs" and not bench.dry:  # the recording's memory stays
                torch.cuda.empty_cache()
                row["mib"] = round((torch.cuda.memory_reserved() - before) / 2**20)
                if not net.extract_feat.replays:
                    raise RuntimeError("nothing was recorded")
            bench.note("backbone", what="training step, backbone", T=steps, way=way, **row)
            if way == "ours":
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
    }
    for way, (net, mixed) in ways.items():
        with (
            bench.guarded("backbone", f"inference, {way}, T = {steps}"),
            torch.no_grad(),
            torch.autocast(bench.device, bench.dtype, enabled=mixed),
            plainly() if way == "eager" else nullcontext(),
        ):
            x = images if mixed else images.to(bench.dtype)
            row = bench.time(lambda net=net, x=x: net(x))
            bench.note("backbone", what="inference, backbone", T=steps, way=way, **row)
            if way == "deployed, half weights":
                _profile(lambda net=net, x=x: net(x), "inference, backbone", steps, way, bench)


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


def layers(bench: Bench) -> None:
    """Chains of layers, forward and backward: 64 channels of 256 x 256, 8 images."""
    channels, size = (8, 8) if bench.dry else (64, 256)
    norm_cfg = {"type": "BN"}

    def conv(a: int, b: int, kernel: int) -> nn.Module:
        return spike_conv(a, b, kernel, norm_cfg=norm_cfg, init_rate=ONE_SIGMA_RATE)

    chains = {
        "two 1x1 layers": nn.Sequential(conv(channels, channels, 1), conv(channels, channels, 1)),
        "SepConv": SepConv(channels, norm_cfg, None),
        "ChannelMLP": ChannelMLP(channels, 3, norm_cfg, None),
    }
    for steps in (1, 4):
        images = max(bench.images // steps, 1)
        x = torch.randn(steps, images, size, size, channels, device=bench.device)
        x = x.permute(0, 1, 4, 2, 3).to(bench.dtype).requires_grad_()  # channels-last
        for name, chain in chains.items():
            chain = chain.to(bench.device)
            for way, net in {"eager": make_plain(copy.deepcopy(chain)), "ours": chain}.items():
                with bench.guarded("layers", f"{name}, {way}, T = {steps}"):

                    def step(net: nn.Module = net, way: str = way, x: Tensor = x) -> None:
                        plain = plainly() if way == "eager" else nullcontext()
                        with bench.autocast(), plain:
                            y = run_layers(net, x)
                        torch.autograd.grad(y, [x, *net.parameters()], y.detach())

                    row = bench.time(step, 0.5)
                    what = f"{name}, forward and backward, {images} images"
                    bench.note("layers", what=what, T=steps, way=way, **row)
    _time_norm_and_neuron(bench, channels, size)


def _time_norm_and_neuron(bench: Bench, channels: int, size: int) -> None:
    """A norm and the neuron after it, against a copy of the bytes that they must touch."""
    for steps in (1, 4):
        shape = (steps, bench.images, size, size, channels)
        y = torch.randn(shape, device=bench.device, dtype=bench.dtype).permute(0, 1, 4, 2, 3)
        grad, y = torch.randn_like(y), y.requires_grad_()
        source = torch.empty(5 * y.numel() // 2, device=bench.device, dtype=bench.dtype)
        target = torch.empty_like(source)
        norm = nn.BatchNorm2d(channels).to(bench.device)
        nn.init.constant_(norm.weight, 2.0)
        eager = make_plain(nn.Sequential(LIF()))
        ways = {
            "eager": lambda y, norm=norm, eager=eager: eager(per_step(norm, y)),
            "ours": partial(_fused_pair(bench), norm, LIF()),
        }
        runs = {"copy": lambda source=source, target=target: target.copy_(source)}
        for way, pair in ways.items():
            runs[way] = lambda pair=pair, y=y, grad=grad: torch.autograd.grad(pair(y), y, grad)
        for way, run in runs.items():
            with bench.guarded("layers", f"norm and neuron, {way}"), bench.autocast():
                what = "norm and neuron, forward and backward"
                bench.note("layers", what=what, T=steps, way=way, **bench.time(run, 0.3))


def _fused_pair(bench: Bench) -> Callable[[nn.Module, nn.Module, Tensor], Tensor]:
    """What runs a norm and the neuron after it together on this device."""
    if bench.dry:
        from mmspike.fused.cpu.spikes import norm_and_fire

        return norm_and_fire
    from mmspike.fused.cuda.spikes import norm_and_fire

    return lambda norm, neuron, y: norm_and_fire(norm, neuron, y).values


def neurons(bench: Bench) -> None:
    """The neuron alone, forward and backward, every backend that is there."""
    for steps in (1, 4):
        count = 2**8 if bench.dry else 2**24 // steps
        x = 2 * torch.randn(steps, count, device=bench.device, dtype=bench.dtype)
        source = x.new_empty(5, x.numel() // 2)
        target, x = torch.empty_like(source), x.requires_grad_()
        runs = {"copy": lambda source=source, target=target: target.copy_(source)}
        eager = make_plain(nn.Sequential(LIF()))
        for way, net in {
            "eager": eager,
            "ours": LIF(),
            "ours, plain torch": LIF(backend="torch"),
        }.items():
            runs[way] = lambda net=net, x=x: torch.autograd.grad(net(x), x, x.detach())
        for way, run in runs.items():
            with bench.guarded("neurons", f"{way}, T = {steps}"):
                what = f"{count} neurons, forward and backward"
                bench.note("neurons", what=what, T=steps, way=way, **bench.time(run, 0.3))


def tests(bench: Bench) -> None:
    """The tests that need a GPU, in processes side by side."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"]
    command += ["--collect-only"] if bench.dry else ["-n", "8", "--dist", "loadfile"]
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
