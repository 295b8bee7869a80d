from __future__ import annotations

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from torch import nn

import mmspike.registry  # noqa: F401
from mmspike.backbones import MetaSpikeFormer
from mmspike.necks import SpikeFPN


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


def groups_of(model, constructor, **paramwise):
    """Learning rate and weight decay of every parameter, by name."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor=constructor,
            optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.05),
            paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, **paramwise),
        ),
    )
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = MetaSpikeFormer(arch=dict(embed_dims=[16, 16, 24, 32], num_heads=4))
        self.neck = SpikeFPN([16, 16, 24, 32], 16, num_outs=5)
        self.head = nn.Sequential(nn.Conv2d(16, 4, 1), nn.GroupNorm(2, 4), nn.Linear(4, 4))


def test_norms_and_biases_take_no_weight_decay_whatever_their_rate():
    model = Model()
    groups = groups_of(
        model,
        "mmspike.LayerDecayConstructor",
        layer_decay_rate=0.9,
        lr_mults={"neck": 2.0, "head.2": 5.0},
    )
    assert groups.keys() == dict(model.named_parameters()).keys()
    vectors = {name for name, p in model.named_parameters() if p.dim() == 1}
    assert {name for name, (_, decay) in groups.items() if decay == 0.0} == vectors
    assert {decay for name, (_, decay) in groups.items() if name not in vectors} == {0.05}


def test_layer_decay_by_hand():
    groups = groups_of(Model(), "mmspike.LayerDecayConstructor", layer_decay_rate=0.5)
    rates = {name: lr for name, (lr, _) in groups.items()}
    assert rates["head.0.weight"] == rates["neck.lateral_convs.0.layer.weight"] == 1.0
    assert rates["backbone.stages.0.downsample.layer.weight"] == 0.5**13
    assert rates["backbone.stages.0.blocks.0.mixer.0.layer.weight"] == 0.5**12
    assert rates["backbone.stages.1.downsample.norm.bias"] == 0.5**11
    assert rates["backbone.stages.2.blocks.1.mlp.0.norm.weight"] == 0.5**9
    assert rates["backbone.stages.4.blocks.0.mixer.q_norm.bias"] == 0.5**2
    assert rates["backbone.stages.4.blocks.1.mlp.1.layer.weight"] == 0.5


def test_rates_of_parts():
    groups = groups_of(
        Model(),
        "mmspike.LayerDecayConstructor",
        layer_decay_rate=1.0,
        lr_mults={"backbone": 0.1, "neck": 2.0, "head": 3.0, "head.2": 4.0},
    )
    for name, (lr, _) in groups.items():
        part = name.split(".")[0]
        expected = {"backbone": 0.1, "neck": 2.0, "head": 3.0}[part]
        assert lr == (4.0 if name.startswith("head.2.") else expected), name


@pytest.mark.parametrize(
    ("paramwise", "message"),
    [
        (dict(), "layer_decay_rate must be in"),
        (dict(layer_decay_rate=1.5), "layer_decay_rate must be in"),
        (dict(layer_decay_rate=0.5, lr_mults={"neckk": 2.0}), "no part 'neckk'"),
    ],
)
def test_bad_settings(paramwise, message):
    with pytest.raises(ValueError, match=message):
        groups_of(Model(), "mmspike.LayerDecayConstructor", **paramwise)


def test_layer_decay_needs_its_rate():
    cfg = dict(constructor="mmspike.LayerDecayConstructor", optimizer=dict(type="AdamW", lr=1.0))
    with pytest.raises(ValueError, match="layer_decay_rate must be in"):
        build_optim_wrapper(Model(), cfg)


def test_backbones_that_cannot_count_their_layers():
    model = Model()
    model.backbone = nn.Conv2d(3, 4, 1)
    with pytest.raises(ValueError, match="Conv2d has no get_layer_depth"):
        groups_of(model, "mmspike.LayerDecayConstructor", layer_decay_rate=0.5)


def test_frozen_parameters_are_told_in_one_line(caplog):
    model = nn.Module()
    arch = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
    model.backbone = MetaSpikeFormer(arch=arch, out_indices=(1, 2, 3), frozen_stages=0)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        groups = build("mmspike.MergedGroupsConstructor", model).optimizer.param_groups
    finally:
        logger.removeHandler(caplog.handler)
    told = [r for r in caplog.records if "gradient" in r.getMessage() or "grad=" in r.getMessage()]
    assert len(told) == 1
    assert "'backbone.stages.0': " in told[0].getMessage()
    assert "'backbone.stages.4': 92" in told[0].getMessage()
    learning = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for g in groups for p in g["params"]} == learning
