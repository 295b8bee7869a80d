from __future__ import annotations

import copy

import pytest
import torch
from spikingjelly.activation_based import functional as sj_functional
from spikingjelly.activation_based import surrogate as sj_surrogate
from spikingjelly.activation_based.monitor import OutputMonitor
from spikingjelly.activation_based.neuron import BaseNode, LIFNode
from torch import nn

from mmspike.neurons import LIF, build_neuron, build_surrogate


@pytest.mark.parametrize("time_steps", [1, 2, 5])
@pytest.mark.parametrize("v_reset", [0.0, 0.1, None])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_equals_spikingjellys_node_forward_and_gradient(
    time_steps, v_reset, decay_input, detach_reset
):
    kwargs = dict(tau=2.0, v_reset=v_reset, decay_input=decay_input, detach_reset=detach_reset)
    ours = LIF(surrogate=dict(type="Sigmoid", alpha=4.0), **kwargs)
    theirs = LIFNode(surrogate_function=sj_surrogate.Sigmoid(4.0), step_mode="m", **kwargs)
    x = (2 * torch.randn(time_steps, 3, 4, 5, 6, dtype=torch.float64)).transpose(2, 4)
    weight = torch.randn_like(x)
    grads = []
    for node in (ours, theirs):
        leaf = x.clone().requires_grad_()
        spikes = node(leaf)
        (spikes * weight).sum().backward()
        grads.append((spikes, leaf.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert 0 < grads[0][0].mean() < 1
    torch.testing.assert_close(grads[0][1], grads[1][1])


def test_every_call_starts_at_rest():
    node = LIF()
    x = torch.full((2, 1, 3), 1.5)
    first = node(x)
    assert first.flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(node(x), first)
    node(torch.rand(4, 7, 2))  # another T and batch
    assert torch.equal(node(x), first)


def test_spikingjelly_recognises_it():
    net = nn.Sequential(nn.Conv2d(1, 1, 1), LIF())
    assert isinstance(net[1], BaseNode)
    with OutputMonitor(net, LIFNode) as monitor:
        net[1](torch.full((1, 1, 1, 2, 2), 3.0))
    assert monitor.monitored_layers == ["1"]
    assert monitor["1"][0].sum() == 4
    sj_functional.reset_net(net)
    sj_functional.set_step_mode(net, "m")
    with pytest.raises(ValueError, match="step_mode"):
        net[1].step_mode = "s"


def test_declares_its_spikes_and_the_input_it_fires_at():
    assert LIF.spike_levels == 1
    for node in (LIF(), LIF(tau=4.0, v_threshold=0.5), LIF(decay_input=False), LIF(v_reset=0.2)):
        at = torch.full((1, 1), node.firing_input, dtype=torch.float64)
        assert node(at + 1e-9).item() == 1
        assert node(at - 1e-6).item() == 0


def test_holds_no_tensors_and_can_be_copied():
    node = LIF()
    node(torch.rand(2, 3, requires_grad=True))
    assert node.state_dict() == {}
    copy.deepcopy(node)


def test_build_from_config_with_overrides():
    node = build_neuron(dict(type="mmspike.LIF", tau=3), v_threshold=0.5)
    assert (node.tau, node.v_threshold) == (3.0, 0.5)
    assert type(build_neuron()) is LIF
    surrogate = build_surrogate(dict(type="ATan", alpha=3.0))
    assert isinstance(surrogate, sj_surrogate.ATan)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(tau=1.0), "tau must be above 1"),
        (dict(surrogate=dict(type="Sigmoyd")), "unknown surrogate type 'Sigmoyd'.*'Sigmoid'"),
        (dict(surrogate=dict(alpha=4.0)), "unknown surrogate type None"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LIF(**kwargs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["tau", "v_threshold", "v_reset", "surrogate.alpha"])
def test_refuses_parameters_that_are_not_finite(name, value):
    key, _, part = name.partition(".")
    kwargs = {key: {"type": "ATan", part: value} if part else value}
    with pytest.raises(ValueError, match=f"{name} must be a finite number, got {value}"):
        build_neuron({"type": "mmspike.LIF", **kwargs})
