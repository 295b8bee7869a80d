"""Backbone and neck as CUDA graphs, against the model without.

On a CPU a stand-in takes the place of the recording: it computes again what was recorded, from and
into the same static memory. All else is as on a GPU.
"""

from __future__ import annotations

import copy
import logging
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS as HOST_HOOKS
from mmengine.runner import Runner
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmspike.backbones import MetaSpikeFormer
from mmspike.engine.cuda_graph_hook import CudaGraphHook
from mmspike.fused import GraphedFeatures, cuda_graphs, graph_limits, graph_record
from mmspike.necks import SpikeFPN

WIDTHS = [16, 16, 16, 16]
SIZES = [(32, 32), (32, 48), (48, 32)]
STEPS = 7
GPU = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=pytest.mark.gpu)]


class Net(BaseModel):
    """Backbone, neck, and a head that reads maps of some levels."""

    def __init__(self, time_steps=1, size=SIZES[0], **backbone):
        super().__init__()
        torch.manual_seed(0)
        arch = dict(embed_dims=WIDTHS, num_heads=2, depths=(1, 0, 0, 1, 0))
        self.backbone = MetaSpikeFormer(
            arch=arch, time_steps=time_steps, attn_init_size=size, **backbone
        )
        self.neck = SpikeFPN(WIDTHS, 16, 5)
        self.neck.make_only([0, 2, 4])
        self.head = nn.Linear(16, 1)

    def extract_feat(self, inputs):
        return self.neck(self.backbone(inputs))

    def forward(self, inputs, data_samples=None, mode="loss"):
        if isinstance(inputs, list | tuple):
            inputs = torch.stack(list(inputs))
        maps = self.extract_feat(inputs)
        assert [m is None for m in maps] == [False, True, False, False, False]
        rates = [self.head(m.float().mean((0, 3, 4))) for m in maps if m is not None]
        if mode == "loss":
            return {"loss": sum(r.square().mean() for r in rates)}
        return rates


def recorder_on_cpu(model):
    """The stand-in: a replay computes again, from static memory and into it."""

    def record(run, image, parameters, memory):
        static, kept = image.detach().clone(), {}
        grad, autocast = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")

        def compute():
            with torch.set_grad_enabled(grad), torch.autocast("cpu", enabled=autocast):
                kept["outputs"] = run(static)

        def differentiate():
            wanted = [y for y in kept["outputs"] if y.requires_grad]
            given = [g for g in grad_outputs if g is not None]
            return graph_record.gradients(wanted, parameters, given) if wanted else []

        def forward():
            compute()
            for static_output, y in zip(outputs, kept["outputs"], strict=True):
                static_output.copy_(y.detach())

        def backward():
            for static_grad, (_, g) in zip(grads, differentiate(), strict=True):
                static_grad.copy_(g)

        before = [b.clone() for b in model.buffers()]
        compute()
        outputs = tuple(y.detach().clone() for y in kept["outputs"])
        grad_outputs = tuple(
            torch.zeros_like(y) if y.requires_grad else None for y in kept["outputs"]
        )
        read, grads = zip(*differentiate(), strict=True) if grad else ((), ())
        for buffer, was in zip(model.buffers(), before, strict=True):
            buffer.copy_(was)  # a recording computes nothing
        return graph_record.Recording(
            static, outputs, read, grad_outputs, grads, forward, backward if grads else None
        )

    return record


@pytest.fixture(params=GPU)
def device(request, monkeypatch):
    if request.param == "cpu":
        monkeypatch.setattr(graph_limits, "DEVICES", ("cpu",))
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return request.param


@pytest.fixture
def graphed(device, monkeypatch):
    """Puts graphs over a model's features."""

    def put(model, **options):
        if device == "cpu":
            monkeypatch.setattr(graph_record, "record", recorder_on_cpu(model))
        model.extract_feat = GraphedFeatures(model, **options)
        return model.extract_feat

    return put


@pytest.fixture
def messages():
    found, handler = [], logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def images(size, device, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, *size, generator=generator).to(device)


NOISE = ("layer.bias", "norm2.weight", "norm2.bias")
"""What only shifts or scales the input of a norm: its gradient is nothing but rounding."""


def assert_same(ours, plain, half=False):
    """The same numbers to rounding, measured by the largest.

    In half precision, the sums of gradients that come from several maps round differently.
    """
    ours, plain = dict(ours), dict(plain)
    assert list(ours) == list(plain)
    for name, y in plain.items():
        if y is None:
            assert ours[name] is None, name
        elif str(name).endswith(NOISE):
            assert ours[name] is not None, name
        elif half:
            assert (ours[name] - y).norm() <= 0.05 * y.norm() + 1e-7, name
        else:
            scale = float(y.abs().max()) if y.numel() else 0.0
            torch.testing.assert_close(ours[name], y, rtol=1e-3, atol=1e-4 * scale + 1e-7, msg=name)


def grads_of(model):
    return [(n, p.grad) for n, p in model.named_parameters()]


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("time_steps", [1, 2])
def test_trains_as_without(device, graphed, messages, amp, time_steps):
    plain = Net(time_steps, frozen_stages=0).to(device)
    model = copy.deepcopy(plain)
    features = graphed(model, warmup=2)
    for step in range(STEPS * 2):
        x = images(SIZES[step % 2], device, step)
        for net in (plain, model):
            net.zero_grad()
            with torch.autocast(device, enabled=amp):
                loss = net(x)["loss"]
            (64 * loss).backward()
        assert_same(grads_of(model), grads_of(plain), half=amp)
        assert_same(model.named_buffers(), plain.named_buffers())
        with torch.no_grad():
            for p, q in zip(plain.parameters(), model.parameters(), strict=True):
                if p.grad is not None:
                    p -= 0.01 * p.grad / p.grad.abs().max().clamp(min=1e-9)
                q.copy_(p)  # in place, as optimizers do
    assert features.replays == 2 * (STEPS - 2)
    assert [m for m in messages if "recorded" in m] == [
        f"CUDA graphs: recorded training on images (2, 3, {h}, {w})" for h, w in SIZES[:2]
    ]
    assert any(g is not None and g.abs().max() > 0 for n, g in grads_of(model) if "stages.1" in n)


def test_gradients_are_accumulated(device, graphed):
    plain = Net().to(device)
    model = copy.deepcopy(plain)
    features = graphed(model, warmup=1)
    for round_of in range(2):
        for net in (plain, model):
            net.zero_grad()
            for step in range(3):
                net(images(SIZES[0], device, 3 * round_of + step))["loss"].backward()
        assert_same(grads_of(model), grads_of(plain))
    assert features.replays == 5


@pytest.mark.filterwarnings("ignore:Grad strides")
def test_distributed_training_gathers_gradients_of_replays(device, graphed, tmp_path):
    plain = Net().to(device)
    model = copy.deepcopy(plain)
    distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
        wrapped.register_comm_hook(None, twice)
        features = graphed(model, warmup=1)
        for i in range(4):
            for net in (plain, wrapped):
                net.zero_grad()
                net(images(SIZES[0], device, i))["loss"].backward()
            assert_same([(n, g / 2) for n, g in grads_of(model) if g is not None],
                        [(n, g) for n, g in grads_of(plain) if g is not None])  # fmt: skip
    finally:
        distributed.destroy_process_group()
    assert features.replays == 3


def twice(_, bucket):
    """What the processes' gradients add up to: here, twice the own."""
    done = torch.futures.Future()
    done.set_result(2 * bucket.buffer())
    return done


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_infers_as_without_and_gives_copies(device, graphed, mode):
    plain = Net(2).to(device)
    norms = [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    plain(images(SIZES[0], device, 9))  # statistics with which it fires
    plain.eval()
    model = copy.deepcopy(plain)
    features = graphed(model, warmup=1)
    with mode():
        before, then, now = (model.extract_feat(images(SIZES[0], device, i)) for i in range(3))
        kept = [m.clone() for m in then if m is not None]
        assert features.replays == 2
        for i, maps in enumerate((before, then, now)):
            wanted = plain.extract_feat(images(SIZES[0], device, i))
            assert_same(enumerate(maps), enumerate(wanted))
        assert any(not torch.equal(a, b) for a, b in zip(then, now, strict=True) if a is not None)
    assert all(torch.equal(a, b) for a, b in zip(kept, filter_none(then), strict=True))


def filter_none(maps):
    return [m for m in maps if m is not None]


def test_two_forward_passes_before_a_backward_pass_are_refused(device, graphed):
    model = Net().to(device)
    graphed(model, warmup=1)
    model(images(SIZES[0], device, 0))["loss"].backward()
    first = model(images(SIZES[0], device, 1))["loss"]
    second = model(images(SIZES[0], device, 2))["loss"]
    second.backward()
    with pytest.raises(RuntimeError, match="another forward or backward pass of the model came"):
        first.backward()


def test_sizes_beyond_the_bound_run_plainly_with_one_line(device, graphed, messages):
    model = Net().to(device)
    features = graphed(model, max_graphs=1, warmup=1)
    for _ in range(3):
        for i, size in enumerate(SIZES):
            model(images(size, device, i))["loss"].backward()
    assert features.replays == 2
    assert [m for m in messages if "run plainly" in m] == [
        "CUDA graphs: images (2, 3, 32, 48) run plainly: max_graphs=1 are there"
    ]


def with_cp(model):
    model.backbone.stages_with_cp = frozenset({0})


def drop_path(model):
    model.backbone.stages[0].blocks[0].drop_path.drop_prob = 0.1


def dropout(model):
    model.neck.register_module("dropout", nn.Dropout(0.1))


def hook(model):
    model.backbone.stages[0].register_forward_hook(lambda *_: None)


def compiled(model):
    model.neck.extra_convs.compile(backend="eager")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_cp, "backbone is checkpointed (with_cp)"),
        (drop_path, "backbone.stages.0.blocks.0.drop_path draws random numbers"),
        (dropout, "neck.dropout draws random numbers"),
        (hook, "backbone.stages.0 has hooks"),
        (compiled, "neck.extra_convs is compiled"),
    ],
)
def test_what_cannot_be_recorded_runs_plainly(device, graphed, messages, change, reason):
    model = Net().to(device)
    features = graphed(model, warmup=1)
    change(model)
    for i in range(3):
        model(images(SIZES[0], device, i))["loss"].backward()
    assert features.replays == 0
    said = f"CUDA graphs: images (2, 3, 32, 32) run plainly: {reason}"
    assert [m for m in messages if "plainly" in m] == [said]


def test_random_numbers_and_checkpoints_are_no_matter_in_inference(device, graphed):
    model = Net().to(device)
    features = graphed(model, warmup=1)
    for change in (with_cp, drop_path, dropout):
        change(model)
    model.eval()
    with torch.no_grad():
        for i in range(3):
            model.extract_feat(images(SIZES[0], device, i))
    assert features.replays == 2


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (torch.autograd.detect_anomaly, "anomaly detection is on"),
        (
            lambda: torch.autograd.graph.save_on_cpu(),
            "hooks decide what is kept for the backward pass",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Anomaly")
def test_modes_run_plainly_while_they_are_on(device, graphed, messages, context, reason):
    model = Net().to(device)
    features = graphed(model, warmup=1)
    for i in range(2):
        with context():
            model(images(SIZES[0], device, i))["loss"].backward()
    assert features.replays == 0
    assert messages[-1].endswith(f"run plainly: {reason}")
    for i in range(2):
        model(images(SIZES[0], device, i))["loss"].backward()
    assert features.replays == 1


class Waiting(Net):
    def __init__(self, size):
        super().__init__()
        self.waits_for = size

    def extract_feat(self, inputs):
        if inputs.shape[2:] == self.waits_for:
            float(inputs.sum())  # waits for the GPU
        return super().extract_feat(inputs)


@pytest.mark.parametrize("waits_for", SIZES)
def test_what_fails_while_it_is_recorded_runs_plainly(
    waits_for, device, graphed, messages, monkeypatch
):
    """And leaves other sizes, recorded before and after it, and random numbers as they were."""
    model = Waiting(waits_for).to(device)
    features = graphed(model, warmup=1)
    if device == "cpu":
        record = graph_record.record

        def fail(run, image, *args):
            if image.shape[2:] == waits_for:
                try:
                    raise RuntimeError("operation not permitted\nmore")
                finally:
                    raise RuntimeError("previous error during capture")
            return record(run, image, *args)

        monkeypatch.setattr(graph_record, "record", fail)
    for i in range(4):
        for size in SIZES:
            model(images(size, device, i))["loss"].backward()
            assert torch.rand(3, device=device).isfinite().all()
    assert features.replays == 6
    (said,) = [m for m in messages if "plainly" in m]
    height, width = waits_for
    wanted = f"CUDA graphs: images (2, 3, {height}, {width}) run plainly: recording failed: "
    assert said.startswith(wanted)
    assert "not permitted" in said
    assert "previous error" not in said


def test_the_cause_of_a_failed_recording_is_its_first_error():
    def chain(*errors):
        for before, error in zip((None, *errors), errors, strict=False):
            error.__context__ = before
        return errors[-1]

    ended = RuntimeError("previous error during capture")
    assert (
        cuda_graphs._cause_of(chain(RuntimeError("not permitted\nmore"), ended)) == "not permitted"
    )
    caught = chain(KeyError("k"), RuntimeError("out of memory"))  # another's, and dealt with
    assert cuda_graphs._cause_of(caught) == "out of memory"


def test_a_capture_that_fails_gives_back_what_it_holds(monkeypatch):
    """The calls that set the allocator and the random generator right, without a GPU."""
    pools, ended, captures = iter([(0, 1), (0, 2)]), [], []

    @contextmanager
    def capture(graph, pool=None, capture_error_mode="global"):
        captures.append(f"begin {pool}")
        yield
        captures.append(f"end {pool}")

    for name, stand_in in {
        "CUDAGraph": lambda: SimpleNamespace(replay=None),
        "graph": capture,
        "graph_pool_handle": lambda: next(pools),
        "current_device": lambda: 0,
        "current_stream": lambda: None,
        "stream": lambda _: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(
        torch._C, "_cuda_endAllocateToPool", lambda _, pool: ended.append(pool), raising=False
    )
    memory, image = graph_record.Memory(), torch.ones(2)

    def fail(_):
        raise RuntimeError("operation not permitted")

    with pytest.raises(RuntimeError, match="operation not permitted"):
        graph_record.record(fail, image, [], memory)
    assert ended == [(0, 1)]
    assert captures == ["begin (0, 1)", "begin None", "end None"]
    graph_record.record(lambda x: [x + 1], image, [], memory)
    assert captures[3:] == ["begin (0, 2)", "end (0, 2)"]
    assert ended == [(0, 1)]


def test_moved_weights_are_recorded_anew(device, graphed):
    plain = Net().to(device)
    model = copy.deepcopy(plain)
    features = graphed(model, warmup=1)
    for i in range(6):
        for net in (plain, model):
            net.zero_grad()
            net(images(SIZES[0], device, i))["loss"].backward()
        assert_same(grads_of(model), grads_of(plain))
        if i == 2:
            for p in model.parameters():
                p.data = p.data.clone()
    assert features.replays == 4


def test_inference_is_recorded_anew_when_weights_change(device, graphed):
    model = Net().to(device).eval()
    features = graphed(model, warmup=1)
    with torch.no_grad():
        for i in range(6):
            model.extract_feat(images(SIZES[0], device, i))
            if i == 2:
                model.backbone.stages[0].downsample.layer.weight.mul_(2)
    assert features.replays == 4  # all but the first, and the first after the change


def test_a_copy_of_the_model_has_graphs_of_its_own(device, graphed):
    model = Net().to(device)
    graphed(model, warmup=1)
    for i in range(2):
        model(images(SIZES[0], device, i))
    other = copy.deepcopy(model)
    assert other.extract_feat.model is other
    assert other.extract_feat.replays == 0
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
        model.eval(), other.eval()
        maps = filter_none(other.extract_feat(images(SIZES[0], device, 0)))
    assert not any(m.any() for m in maps)


def test_images_on_a_cpu_run_plainly(messages):
    model = Net()
    model.extract_feat = GraphedFeatures(model, warmup=1)
    for i in range(2):
        model(images(SIZES[0], "cpu", i))["loss"].backward()
    assert [m for m in messages if "plainly" in m] == [
        "CUDA graphs: images (2, 3, 32, 32) run plainly: the images are on the CPU"
    ]


class AutocastOnCPU(OptimWrapper):
    """What ``AmpOptimWrapper`` is on a GPU."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast("cpu"):
            yield


AMP = {
    "cpu": dict(type=AutocastOnCPU),
    "cuda": dict(type="AmpOptimWrapper", loss_scale=64.0),
}


def run(folder, model, hooks, wrapper=None, accumulate=1, iterations=8):
    loader = dict(
        dataset=[dict(inputs=images(SIZES[0], "cpu", i)[0]) for i in range(4)],
        sampler=dict(type="DefaultSampler", shuffle=False),
        batch_size=2,
        num_workers=0,
    )
    optimizer = dict(optimizer=dict(type="SGD", lr=0.01), accumulative_counts=accumulate)
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader={**loader, "sampler": dict(type="InfiniteSampler", shuffle=False)},
        val_dataloader=loader,
        val_cfg={},
        val_evaluator=Evaluator([]),
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=iterations // 2),
        optim_wrapper={**optimizer, **(wrapper or {})},
        custom_hooks=hooks,
        default_hooks=dict(checkpoint=None),
        log_processor=dict(by_epoch=False),
        experiment_name=folder.name,
    )
    runner.train()
    return runner


@pytest.fixture
def trained(tmp_path, device, monkeypatch):
    """Trains a model with averaged weights and two validations, plainly or with the hook."""

    def train(name, wrapper=None, accumulate=1, iterations=8):
        model = Net()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(not key.endswith(NOISE))  # over several steps, it grows
        if name == "graphs" and device == "cpu":
            monkeypatch.setattr(graph_record, "record", recorder_on_cpu(model))
        hook = HOST_HOOKS.build(dict(type="mmspike.CudaGraphHook", warmup=1))
        hooks = [EMAHook(), *([hook] if name == "graphs" else [])]
        runner = run(tmp_path / name, model, hooks, wrapper, accumulate, iterations)
        assert "extract_feat" not in vars(model)
        assert hook.features is None
        ema = next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model
        after = {**model.state_dict(), **{f"ema.{k}": v for k, v in ema.state_dict().items()}}
        return before, after

    return train


@pytest.fixture
def replays(monkeypatch):
    """For each replay, whether it has a backward pass."""
    found, replay = [], graph_record.replay

    def noted(recording, *args):
        found.append(bool(recording.backward))
        return replay(recording, *args)

    monkeypatch.setattr(graph_record, "replay", noted)
    return found


@pytest.mark.parametrize("accumulate", [1, 2])
def test_hook_with_averaged_weights_and_validations(trained, replays, accumulate):
    _, plain = trained("plain", accumulate=accumulate)
    assert not replays
    _, graphs = trained("graphs", accumulate=accumulate)
    assert replays.count(True) == 7
    assert replays.count(False) == 2  # the second of two batches, in each of two validations
    floats = {k: v for k, v in plain.items() if v.is_floating_point()}
    assert_same({k: graphs[k] for k in floats}, floats)
    assert any(k.endswith("num_batches_tracked") for k in plain)
    for k in plain.keys() - floats.keys():
        assert torch.equal(graphs[k], plain[k]), k


@pytest.mark.parametrize(("accumulate", "iterations"), [(1, 2), (3, 3)])
def test_hook_in_mixed_precision(device, trained, replays, accumulate, iterations):
    """No replay reads weights that another has changed: roundings would have moved spikes."""
    options = dict(wrapper=AMP[device], accumulate=accumulate, iterations=iterations)
    before, plain = trained("plain", **options)
    _, graphs = trained("graphs", **options)
    assert replays.count(True) == iterations - 1
    moved = 0
    for name, start in before.items():
        if not start.is_floating_point():
            assert torch.equal(graphs[name], plain[name]), name
            continue
        change = (plain[name] - start).norm()
        assert (graphs[name] - plain[name]).norm() <= 0.05 * change + 1e-7, name
        moved += bool(change > 0)
    assert moved > 50


@pytest.mark.parametrize("name", ["max_graphs", "warmup"])
def test_hook_refuses_numbers(name):
    with pytest.raises(ValueError, match=f"CudaGraphHook: {name} must be a number from 1, got 0"):
        CudaGraphHook(**{name: 0})


def test_hook_needs_features(tmp_path):
    class Headless(Net):
        extract_feat = None

    with pytest.raises(ValueError, match="Headless has no extract_feat"):
        run(tmp_path, Headless(), [CudaGraphHook()])
