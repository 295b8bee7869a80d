"""torch.compile on backbone and neck, against the reference that is not compiled."""

from __future__ import annotations

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch._dynamo.backends.registry import lookup_backend

from mmspike.backbones import MetaSpikeFormer
from mmspike.engine.compile_hook import CompileHook
from mmspike.layers.conv import ONE_SIGMA_RATE, spike_conv
from mmspike.necks import SpikeFPN
from mmspike.neurons import LIF

WIDTHS = [16, 16, 32, 32]
ARCH = dict(embed_dims=WIDTHS, num_heads=1)
# The first has no extent in common with channels, steps or images at any stride: the compiler would
# take them for one.
SIZES = [(84, 108), (64, 48), (33, 47)]


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def shallow(monkeypatch):
    """A block of each kind: all kinds of layers, in a fraction of the time to compile."""
    monkeypatch.setitem(ARCH, "depths", (1, 0, 0, 1, 0))


def backbone_of(time_steps=1, **kwargs):
    return MetaSpikeFormer(arch=ARCH, time_steps=time_steps, attn_init_size=(64, 64), **kwargs)


def reference_of(model):
    """A copy whose neurons are the reference."""
    reference = copy.deepcopy(model)
    for module in reference.modules():
        if isinstance(module, LIF):
            module.backend = "torch"
    return reference


class Counting:
    """A backend that counts the graphs it compiles."""

    def __init__(self, name):
        self.backend, self.graphs = lookup_backend(name), 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return self.backend(graph, inputs)


def tensors(x):
    return [x] if isinstance(x, torch.Tensor) else list(x)


def results(model, x):
    """Outputs, and in training the gradients; buffers."""
    model.zero_grad()
    ys = tensors(model(x))
    grads = []
    if model.training:
        generator = torch.Generator().manual_seed(3)
        weights = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in ys]
        sum((w * y).mean() for w, y in zip(weights, ys, strict=True)).backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
    return [y.detach() for y in ys], grads, [b.clone() for b in model.buffers()]


def check_same(model, reference, x, tol=1e-9):
    for kind, (a, b) in enumerate(zip(results(model, x), results(reference, x), strict=True)):
        assert len(a) == len(b)
        # gradients of what stands in front of a norm are 0 but for rounding
        scale = max((float(v.abs().max()) for v in b), default=1.0) if kind == 1 else None
        for v, w in zip(a, b, strict=True):
            torch.testing.assert_close(v, w, rtol=tol, atol=tol * (scale or 1.0))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("time_steps", [1, 4])
def test_a_layer_at_any_size(training, time_steps):
    model = spike_conv(8, 16, 3, stride=2, norm_cfg=dict(type="BN"), init_rate=ONE_SIGMA_RATE)
    model = model.double().train(training)
    reference, backend = reference_of(model), Counting("aot_eager")
    model.compile(backend=backend, fullgraph=True, dynamic=True)
    graphs = []
    for size in [(9, 6), (7, 10), (5, 4)]:
        x = 2 * torch.randn(time_steps, 2, 8, *size, dtype=torch.float64)
        check_same(model, reference, x)
        graphs.append(backend.graphs)
    assert len(set(graphs)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("training", "time_steps"), [(True, 2), (False, 1)])
@pytest.mark.usefixtures("shallow")
def test_backbone_at_any_size(training, time_steps):
    model = backbone_of(time_steps, frozen_stages=0).double().train(training)
    reference, backend = reference_of(model), Counting("eager")
    model.compile(backend=backend, fullgraph=True, dynamic=True)
    graphs = []
    for size in SIZES:
        check_same(model, reference, torch.rand(2, 3, *size, dtype=torch.float64), 1e-6)
        graphs.append(backend.graphs)
    assert len(set(graphs)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("norm_eval", [True, False])
@pytest.mark.usefixtures("shallow")
def test_whole_backbone_is_one_graph(norm_eval):
    model = backbone_of(2, norm_eval=norm_eval, frozen_stages=1).double().train()
    reference, backend = reference_of(model), Counting("eager")
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    x = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    for a, b in zip(compiled(x), reference(x), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(model.buffers(), reference.buffers(), strict=True):
        assert torch.equal(a, b)
    assert backend.graphs == 1


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_neck_at_any_size(training):
    model = SpikeFPN(WIDTHS, 16, 5).double().train(training)
    reference, backend = reference_of(model), Counting("aot_eager" if training else "eager")
    model.compile(backend=backend, fullgraph=True, dynamic=True)
    graphs = []
    # Large enough that no level is one pixel high, which the compiler takes for another case.
    for h, w in [(44, 60), (64, 36), (33, 49)]:
        sizes = [(-(-h // s), -(-w // s)) for s in (1, 2, 4, 4)]
        xs = [
            torch.randn(2, 2, c, *size, dtype=torch.float64)
            for c, size in zip(WIDTHS, sizes, strict=True)
        ]
        check_same(model, reference, xs)
        graphs.append(backend.graphs)
    assert len(set(graphs)) == 1


def test_inductor():
    model = spike_conv(8, 16, 3, norm_cfg=dict(type="BN"), init_rate=ONE_SIGMA_RATE)
    reference = reference_of(model)
    model.compile(fullgraph=True)
    check_same(model, reference, 2 * torch.randn(3, 2, 8, 6, 5), 1e-4)


@pytest.mark.parametrize(
    ("surrogate", "options"),
    [
        *((name, {}) for name in ("Sigmoid", "ATan", "Erf", "PiecewiseQuadratic")),
        ("Sigmoid", dict(v_reset=None)),
        ("ATan", dict(detach_reset=False)),
    ],
    ids=str,
)
def test_spikes_and_gradients(surrogate, options):
    neuron = LIF(surrogate=dict(type=surrogate), **options)
    reference = reference_of(neuron)
    compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True, dynamic=True)
    x = 2 * torch.randn(4, 3, 5, dtype=torch.float64)
    weight, found = torch.randn(4, 3, 5, dtype=torch.float64), []
    for run in (compiled, reference):
        inputs = x.clone().requires_grad_()
        s = run(inputs)
        assert set(s.unique().tolist()) == {0.0, 1.0}
        (s * weight).sum().backward()
        found.append((s, inputs.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-12, atol=1e-12)


def test_a_parameter_that_changes_is_seen():
    neuron, backend = LIF(), Counting("eager")
    neuron.compile(backend=backend, fullgraph=True, dynamic=True)
    x = torch.full((1, 4), 1.5)
    assert neuron(x).sum() == 0
    neuron.v_threshold = 0.5
    assert neuron(x).sum() == 4


def test_a_backend_that_cannot_be_compiled_says_so():
    neuron = LIF(backend="eager")
    x = 2 * torch.randn(2, 4)
    with pytest.raises(Exception, match="only a LIF of backend 'auto' or 'torch' can be compiled"):
        torch.compile(neuron, backend="eager", fullgraph=True)(x)
    assert torch.equal(torch.compile(neuron, backend="eager")(x), neuron(x))  # outside of graphs


def test_checkpointing_inside_a_graph_is_refused():
    model = backbone_of(with_cp=(0,), out_indices=(0,)).train()
    with pytest.raises(Exception, match="compile what is checkpointed"):
        torch.compile(model, backend="eager", fullgraph=True)(torch.rand(1, 3, 16, 16))


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_compiled_blocks_are_checkpointed():
    model = backbone_of(with_cp=True, out_indices=(0, 1)).double().train()
    reference = reference_of(model)
    for stage in (model.stages[2], model.stages[3], model.stages[4]):
        stage.requires_grad_(False)
    model.compile(backend="aot_eager", fullgraph=True)
    model.zero_grad()
    x = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    for _ in range(2):
        found = []
        for net in (model, reference):
            net.zero_grad()
            ys = net(x)
            sum(y.square().mean() for y in ys).backward()
            grads = [p.grad for p in net.stages[:2].parameters()]
            found.append([*ys, *grads, *net.stages[:2].buffers()])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


class Net(BaseModel):
    """A model with a spiking backbone of one stage."""

    def __init__(self):
        super().__init__()
        self.backbone = backbone_of(out_indices=(0,))
        self.backbone.stages = self.backbone.stages[:1]
        self.head = nn.Linear(8, 1)

    def forward(self, inputs, data_samples=None, mode="loss"):
        (y,) = self.backbone(torch.stack(list(inputs)))
        return {"loss": self.head(y.mean((0, 3, 4))).square().mean()}


def run(tmp_path, model, **hook):
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.rand(3, 16, 24)) for _ in range(4)],
            sampler=dict(type="InfiniteSampler"),
            batch_size=2,
            num_workers=0,
        ),
        train_cfg=dict(by_epoch=False, max_iters=3),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
        custom_hooks=[dict(type="mmspike.CompileHook", **hook)],
        default_hooks=dict(checkpoint=None),
        log_processor=dict(by_epoch=False),
        experiment_name=tmp_path.name,
    )
    runner.train()


def test_hook(tmp_path):
    model = Net()
    names, before = list(model.state_dict()), copy.deepcopy(model.state_dict())
    torch._dynamo.utils.counters.clear()
    run(tmp_path, model, parts=("backbone",), backend="aot_eager")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2  # downsampling and block
    assert not torch._dynamo.utils.counters["graph_break"]
    assert list(model.state_dict()) == names
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_hook_names_parts_that_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"no part 'neck'; its parts are .*'backbone', 'head'"):
        run(tmp_path, Net())


def test_hook_takes_more_sizes_than_torch_does_by_default():
    model = nn.ModuleDict(dict(backbone=spike_conv(8, 8, 3, norm_cfg=dict(type="BN"))))
    hook, config = CompileHook(("backbone",), backend="eager"), torch._dynamo.config
    with config.patch(recompile_limit=config.recompile_limit):  # put back behind this
        hook.before_run(SimpleNamespace(model=model, logger=logging.getLogger("test")))
        for training in (True, False):
            model.train(training)
            for size in range(4, 10):
                y = model["backbone"](torch.randn(1, 2, 8, size, size))
                assert y.shape == (1, 2, 8, size, size)


def test_hook_is_registered():
    from mmspike.registry import HOOKS

    assert isinstance(HOOKS.build(dict(type="mmspike.CompileHook", dynamic=True)), CompileHook)
