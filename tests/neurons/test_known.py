"""Names of neurons that nobody has checked are those of known neurons, or of none."""

from __future__ import annotations

import pytest
from spikingjelly.activation_based import neuron as sj_neuron
from torch import nn

import mmspike.backbones  # noqa: F401, which is registered
from mmspike.neurons import LIF, IntegerLIF
from mmspike.neurons.known import inference_settings, known_neuron

KNOWN = {
    "LIF": LIF,
    "mmspike.IntegerLIF": IntegerLIF,
    "mmspike.neurons.lif.LIF": LIF,
    "IFNode": sj_neuron.IFNode,
    "spikingjelly.activation_based.neuron.IFNode": sj_neuron.IFNode,
    f"{sj_neuron.IFNode.__module__}.IFNode": sj_neuron.IFNode,
    "ReLU": nn.ReLU,
    "mmdet.ReLU": nn.ReLU,
    "torch.nn.GELU": nn.GELU,
    "torch.nn.modules.activation.Softplus": nn.Softplus,
}
OTHERS = [
    *("mine.LIF", "mmspike.evil.LIF", "mine.neurons.LIF", "mine.IFNode", "mine.ReLU"),
    *("MetaSpikeFormer", "mmspike.SpikeFPN", "evil.MetaSpikeFormer", "Spiking_vit_MetaFormer"),
    *("MultiheadAttention", "torch.nn.MultiheadAttention", "Module", "Linear", "os.system", ""),
]


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_neuron(name):
    assert known_neuron(name) is KNOWN[name]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_none(name):
    assert known_neuron(name) is None


def test_settings_name_no_module_to_import():
    cfg = dict(type="LIF", _scope_="mine", tau=3.0, backend="auto")
    assert inference_settings(None, cfg) == {"tau": 3.0}
