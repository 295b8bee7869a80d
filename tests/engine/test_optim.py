from __future__ import annotations

import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

import mmspike.registry  # noqa: F401


def build(constructor, net):
    return build_optim_wrapper(
        net,
        dict(
            constructor=constructor,
            optimizer=dict(type="AdamW", lr=0.1, weight_decay=0.05),
            paramwise_cfg=dict(
                norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys={"2": dict(lr_mult=5.0)}
            ),
        ),
    )


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Linear(2, 2))
    net[3].requires_grad_(False)
    return net


def test_one_group_per_setting_and_every_parameter_once():
    net = make_net()
    groups = build("mmspike.MergedGroupsConstructor", net).optimizer.param_groups
    names = {id(p): n for n, p in net.named_parameters()}
    listed = {frozenset(names[id(p)] for p in g["params"]): g for g in groups}
    assert {k: (g["lr"], g["weight_decay"]) for k, g in listed.items()} == {
        frozenset({"0.weight"}): (0.1, 0.05),
        frozenset({"0.bias", "1.weight", "1.bias"}): (0.1, 0.0),
        frozenset({"2.weight", "2.bias"}): (0.5, 0.05),
    }


def test_updates_are_those_of_mmengines_constructor():
    results = []
    for constructor in ("DefaultOptimWrapperConstructor", "mmspike.MergedGroupsConstructor"):
        net = make_net()
        wrapper = build(constructor, net)
        for _ in range(3):
            torch.manual_seed(1)
            wrapper.update_params(net(torch.randn(8, 3)).pow(2).mean())
        results.append(net.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], msg=name)
