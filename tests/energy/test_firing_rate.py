from __future__ import annotations

import torch
from torch import nn

from mmspike.energy import measure_firing_rates
from mmspike.neurons import LIF


def test_calls_count_by_their_size():
    net = nn.ModuleDict({"a": LIF(), "b": LIF(), "unused": LIF()})

    def run():
        net["a"](torch.full((1, 1, 2), 3.0))  # 2 of 2 fire
        net["a"](torch.zeros(1, 1, 6))  # 0 of 6
        net["b"](torch.full((4, 1, 1), 1.5))  # every second step

    assert measure_firing_rates(net, run) == {"a": 0.25, "b": 0.5}
    assert not net["a"]._forward_hooks
