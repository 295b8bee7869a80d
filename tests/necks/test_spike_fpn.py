from __future__ import annotations

import pytest
import torch

from mmspike.energy import measure_firing_rates
from mmspike.necks import SpikeFPN


def build(**kwargs):
    defaults = dict(in_channels=[4, 6, 8, 10], in_strides=[4, 8, 16, 16], out_channels=12)
    return SpikeFPN(**{**defaults, "num_outs": 5, **kwargs})


def inputs(time_steps=2, size=(64, 96), channels=(4, 6, 8, 10), strides=(4, 8, 16, 16)):
    return [
        3 * torch.randn(time_steps, 2, c, *(-(-n // s) for n in size))
        for c, s in zip(channels, strides, strict=True)
    ]


@pytest.mark.parametrize("add_extra_convs", [False, True, "on_input", "on_lateral", "on_output"])
@pytest.mark.parametrize("size", [(64, 96), (65, 75), (100, 33)])
def test_levels_double_from_the_finest_stride(add_extra_convs, size):
    neck = build(add_extra_convs=add_extra_convs)
    outs = neck(inputs(size=size))
    assert neck.out_strides == [4, 8, 16, 32, 64]
    for out, stride in zip(outs, neck.out_strides, strict=True):
        assert out.shape == (2, 2, 12, *(-(-n // stride) for n in size))


def test_semantic_fpn_strides():
    neck = build(in_strides=[2, 4, 8, 16], num_outs=4)
    outs = neck(inputs(strides=(2, 4, 8, 16)))
    assert neck.out_strides == [2, 4, 8, 16]
    assert [y.shape[-1] for y in outs] == [48, 24, 12, 6]


def test_maps_of_one_stride_are_summed_into_one_level():
    neck = build(num_outs=3).eval()
    xs = inputs()
    level = neck.lateral_convs[2](xs[2]) + neck.lateral_convs[3](xs[3])
    torch.testing.assert_close(neck(xs)[-1], neck.fpn_convs[-1](level))
    assert len(neck.lateral_convs) == 4
    assert len(neck.fpn_convs) == 3


def test_top_down_repeats_pixels():
    neck = build(num_outs=3).eval()
    seen = {}
    neck.fpn_convs[1].register_forward_pre_hook(lambda m, a: seen.update(level=a[0]))
    xs = inputs()
    neck(xs)
    top = neck.lateral_convs[2](xs[2]) + neck.lateral_convs[3](xs[3])
    up = top.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(seen["level"], neck.lateral_convs[1](xs[1]) + up)


def test_levels_above_are_subsampled():
    outs = build()(inputs())
    assert torch.equal(outs[3], outs[2][..., ::2, ::2])
    assert torch.equal(outs[4], outs[3][..., ::2, ::2])


@pytest.mark.parametrize("time_steps", [1, 4])
def test_steps_are_kept_apart(time_steps):
    neck = build(neuron_cfg=dict(type="mmspike.LIF", tau=1.0 + 1e-6)).eval()  # forgets at once
    xs = inputs(time_steps)
    whole = neck(xs)
    for t in range(time_steps):
        for y, z in zip(whole, neck([x[t : t + 1] for x in xs]), strict=True):
            torch.testing.assert_close(y[t], z[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm_cfg", [dict(type="BN"), dict(type="GN", num_groups=4)])
@pytest.mark.parametrize("time_steps", [1, 4])
def test_alive_at_the_first_step(norm_cfg, time_steps):
    neck = build(norm_cfg=norm_cfg, add_extra_convs="on_output").train()
    rates = measure_firing_rates(neck, lambda: neck(inputs(time_steps, size=(128, 128))))
    assert len(rates) == 9
    assert all(0.02 <= r <= 0.5 for r in rates.values()), rates


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(in_strides=[4, 8, 16]), "must name the same maps"),
        (dict(in_strides=[4, 8, 16, 64]), "equal to the one before or twice it"),
        (dict(in_strides=[8, 4, 16, 16]), "finest first"),
        (dict(num_outs=2), "num_outs=2, but in_strides=.* make 3 levels"),
        (dict(add_extra_convs="on_top"), "add_extra_convs must be a bool or one of"),
        (dict(out_channels=0), "out_channels must be a number above 0, got 0"),
        (dict(in_channels=8), "in_channels must be a list of numbers above 0, got 8"),
        (dict(in_strides=[4, 8, 16, "16"]), "in_strides must be a list of numbers above 0"),
        (dict(num_outs="all"), "num_outs must be a number above 0, got 'all'"),
        (dict(norm_cfg=dict(type="GN")), "norm_cfg must be .*'GN'"),
        (dict(norm_cfg=dict(type="GN", num_groups=5)), "norm_cfg must be .* 12 channels"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


@pytest.mark.parametrize("wrong", [lambda xs: xs[:3], lambda xs: [x[0] for x in xs]])
def test_wrong_inputs_are_refused(wrong):
    with pytest.raises(ValueError, match="takes 4 maps"):
        build()(wrong(inputs()))


@pytest.mark.parametrize("add_extra_convs", [False, "on_input", "on_lateral", "on_output"])
@pytest.mark.parametrize("levels", [{0}, {1, 2}, {2}, {0, 3}, {3}, {1, 4}, {4}, {0, 1, 2, 3, 4}])
def test_some_levels_alone_are_those_of_the_whole(levels, add_extra_convs):
    neck = build(add_extra_convs=add_extra_convs).eval()
    xs = inputs()
    whole = neck(xs)
    neck.make_only(levels)
    outs = neck(xs)
    assert len(outs) == neck.num_outs == 5
    assert all(torch.equal(outs[i], whole[i]) for i in levels)

    ran = set()
    for name, module in neck.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: ran.add(f"{name}.weight"))
    outs = neck.train()(xs)  # the mode wakes nothing
    learning = {n: p for n, p in neck.named_parameters() if p.requires_grad}
    torch.autograd.grad(sum(outs[i].sum() for i in levels), learning.values())  # each is used
    assert ran == {n for n in learning if n.endswith(".layer.weight")}
