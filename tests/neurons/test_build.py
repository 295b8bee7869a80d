"""Neurons from configs: whichever is named, it starts every call at rest."""

from __future__ import annotations

import copy
import io
from concurrent.futures import ThreadPoolExecutor
from threading import Event, current_thread, main_thread

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from spikingjelly.activation_based import base as sj_base
from spikingjelly.activation_based import neuron as sj_neuron
from spikingjelly.activation_based import surrogate as sj_surrogate
from spikingjelly.activation_based.neuron import BaseNode
from torch import nn

from mmspike.backbones import MetaSpikeFormer
from mmspike.checkpoints import CheckpointError, load_pretrained
from mmspike.deploy import switch_to_deploy
from mmspike.neurons import LIF, build_neuron, default_neuron

ARCH = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
STATEFUL = [
    dict(type="IFNode"),
    dict(type="ParametricLIFNode", init_tau=3),
    dict(type="spikingjelly.activation_based.neuron.QIFNode"),
    dict(type=sj_neuron.KLIFNode, surrogate_function=dict(type="ATan")),
    dict(type="Accumulator"),
]


class Accumulator(sj_base.MemoryModule):
    """A user's neuron: fires where the sum of all inputs reaches 1."""

    def __init__(self):
        super().__init__()
        self.register_memory("total", 0.0)

    def single_step_forward(self, x):
        self.total = self.total + x
        return (self.total >= 1).to(x) + 0 * x

    def multi_step_forward(self, x_seq):
        return torch.stack([self.single_step_forward(x) for x in x_seq])


class Leaky(nn.Module):
    """A user's neuron that keeps its potential between calls, as nobody here can know."""

    def __init__(self):
        super().__init__()
        self.v = None

    def forward(self, x_seq):
        out = []
        for x in x_seq:
            self.v = x if self.v is None else 0.5 * self.v + x
            out.append(torch.sigmoid(self.v))
        return torch.stack(out)


@pytest.fixture(autouse=True)
def _users_neurons():
    for cls in (Accumulator, Leaky):
        MODELS.register_module(module=cls)
    yield
    for cls in (Accumulator, Leaky):
        MODELS._module_dict.pop(cls.__name__)


@pytest.fixture(params=[None, "mmdet", "mmseg"])
def scope(request):
    if request.param:
        init_default_scope(request.param)


@pytest.mark.usefixtures("scope")
@pytest.mark.parametrize("cfg", [*STATEFUL, dict(type="mmspike.LIF"), dict(type="ReLU")], ids=str)
def test_every_call_starts_at_rest_and_has_a_graph_of_its_own(cfg):
    neuron = build_neuron(cfg)
    x = (2 * torch.randn(3, 2, 4, 5, 5)).requires_grad_()
    first = neuron(x)
    neuron(torch.full((2, 7, 4, 3, 3), 0.4))  # another T, batch and size
    for _ in range(2):
        again = neuron(x)
        assert torch.equal(again, first)
        again.sum().backward()
    assert 0 < first.detach().mean() < 1
    if cfg["type"] == "ParametricLIFNode":  # as spikingjelly's own, step by step from rest
        node = sj_neuron.ParametricLIFNode(init_tau=3.0)
        assert torch.equal(first, torch.stack([node(step) for step in x]))


@pytest.mark.parametrize("cfg", STATEFUL, ids=str)
def test_a_call_that_another_thread_interrupts_is_at_rest(cfg):
    neuron = build_neuron(cfg)
    a, b = 2 * torch.randn(2, 6, 3, 10)
    expected = neuron(b)
    begun, interrupted = Event(), Event()

    def pause(module, args):
        if current_thread() is not main_thread():
            begun.set()
            assert interrupted.wait(10)

    neuron.node.register_forward_pre_hook(pause)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(neuron, b)
        assert begun.wait(10)
        neuron(a)  # from beginning to end, meanwhile
        interrupted.set()
        assert torch.equal(call.result(), expected)


def test_hooks_and_parameters_are_the_neurons_own():
    neuron = build_neuron(dict(type="ParametricLIFNode"))
    seen = []
    hook = neuron.node.register_forward_hook(lambda m, args, out: seen.append(out))
    out = neuron(torch.full((2, 3), 3.0))
    hook.remove()
    assert seen[0] is out
    out.sum().backward()
    assert neuron.node.w.grad is not None
    assert [n for n, _ in neuron.named_parameters()] == ["node.w"]
    neuron.node.w.data.fill_(9.0)  # a call sees what was written: all of the input, no leak
    assert neuron(torch.full((1, 3), 1.01)).all()
    copy.deepcopy(neuron)
    torch.save(neuron, io.BytesIO())


def test_default_applies_inside_where_no_config_is_given():
    with default_neuron(dict(type="ReLU")):
        assert type(build_neuron()) is nn.ReLU
        assert type(build_neuron(dict(type="mmspike.LIF"))) is LIF
        with default_neuron(None):
            assert type(build_neuron()) is nn.ReLU
    assert type(build_neuron()) is LIF


def test_arguments_of_spikingjellys_neurons():
    neuron = build_neuron(
        dict(
            type="IFNode",
            v_threshold=2,
            v_reset=None,
            surrogate_function=dict(type="ATan", alpha=3.0),
        )
    )
    assert (neuron.node.v_threshold, neuron.node.v_reset) == (2.0, None)
    assert isinstance(neuron.node.surrogate_function, sj_surrogate.ATan)
    assert neuron.node.step_mode == "m"


@pytest.mark.parametrize(
    ("cfg", "firing_input"),
    [
        (dict(type="IFNode"), 1.0),
        (dict(type="IFNode", v_threshold=0.5), 0.5),
        (dict(type="ParametricLIFNode", init_tau=3.0), 3.0),
        (dict(type="IFNode", v_threshold=99.0), None),
        (dict(type="ReLU"), None),
    ],
    ids=str,
)
def test_firing_input_is_measured(cfg, firing_input):
    neuron = build_neuron(cfg)
    assert hasattr(neuron, "firing_input") is (firing_input is not None)
    if firing_input is not None:
        assert neuron.firing_input == pytest.approx(firing_input, abs=0.0101)


@pytest.mark.usefixtures("scope")
@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="IfNode"), "no neuron of type 'IfNode'.*'IFNode'"),
        (dict(tau=2.0), "no neuron of type None"),
        (dict(type="IFNode", step_mode="s"), r"whole sequences, \[T, ...\], step_mode='m'"),
        (dict(type="ParametricLIFNode", init_tau=0.5), "ParametricLIFNode does not take"),
        (dict(type="Leaky"), "Leaky keeps v from one call to the next"),
    ],
    ids=str,
)
def test_what_is_no_neuron_is_refused_by_name(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_neuron(cfg)


def backbone(**options):
    return MetaSpikeFormer(arch=ARCH, time_steps=2, **options)


def attention_neurons(model):
    return [m.attn_neuron for m in model.modules() if hasattr(m, "attn_neuron")]


def test_the_attentions_neuron_differs_only_in_what_it_has():
    for cfg in (None, dict(type="IFNode"), dict(type="mmspike.LIF", v_threshold=0.8)):
        for neuron in attention_neurons(backbone(neuron_cfg=cfg)):
            assert getattr(neuron, "node", neuron).v_threshold == 0.5
    assert all(
        type(n) is nn.ReLU for n in attention_neurons(backbone(neuron_cfg=dict(type="ReLU")))
    )
    mixed = backbone(
        neuron_cfg=dict(type="ReLU"), attn_neuron_cfg=dict(type="mmspike.LIF", tau=3.0)
    )
    assert [n.tau for n in attention_neurons(mixed)] == [3.0] * 8
    with pytest.raises(ValueError, match="attn_neuron_cfg must be what the neuron takes, which"):
        backbone(neuron_cfg=dict(type="ReLU"), attn_neuron_cfg=dict(v_threshold=0.5))
    with pytest.raises(ValueError, match="which has no 'v_treshold', got"):
        backbone(attn_neuron_cfg=dict(v_treshold=0.5))


@pytest.mark.parametrize("kind", ["IFNode", "ParametricLIFNode", "ReLU"])
def test_deployment_keeps_outputs_whatever_the_neuron_learnt(kind):
    model = backbone(neuron_cfg=dict(type=kind), attn_init_size=(48, 48))
    for name, p in model.named_parameters():
        if name.endswith("node.w"):
            nn.init.normal_(p)  # q, k and v have each their own
    for neuron in model.modules():
        if isinstance(neuron, BaseNode):
            neuron.v_threshold = 0.2  # none is silent
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        for _ in range(8):
            model.train()(images)
        plain = model.eval()(images)
        report = switch_to_deploy(model)
        assert report.norms_left == []
        for a, b in zip(model(images), plain, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert plain[-1].std() > 0.1


def test_a_published_backbone_fits_whatever_the_neurons_learn(tmp_path):
    torch.save(backbone().state_dict(), tmp_path / "lif.pth")
    learning = backbone(neuron_cfg=dict(type="ParametricLIFNode", init_tau=3.0))
    start = {n: p.clone() for n, p in learning.named_parameters() if n.endswith(".w")}
    report = load_pretrained(learning, tmp_path / "lif.pth")
    assert report.fits
    assert len(start) > 50
    assert all(torch.equal(learning.get_parameter(n), p) for n, p in start.items())

    for p in start.values():
        p.add_(1.0)
    learning.load_state_dict(start, strict=False)
    torch.save(learning.state_dict(), tmp_path / "plif.pth")
    other = backbone(neuron_cfg=dict(type="ParametricLIFNode", init_tau=3.0))
    load_pretrained(other, tmp_path / "plif.pth")
    assert all(torch.equal(other.get_parameter(n), p) for n, p in start.items())
    with pytest.raises(CheckpointError, match="not in the model"):
        load_pretrained(backbone(), tmp_path / "plif.pth")
    part = {k: v for k, v in learning.state_dict().items() if k != next(iter(start))}
    torch.save(part, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match="missing"):
        load_pretrained(other, tmp_path / "part.pth")
