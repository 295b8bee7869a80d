from __future__ import annotations

import itertools

import pytest
import torch
from torch import distributed
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mmspike.backbones import MetaSpikeFormer
from mmspike.energy import measure_firing_rates
from mmspike.engine.optim import MergedGroupsConstructor

ARCH = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
EAGER = dict(type="mmspike.LIF", backend="eager")


def build(**kwargs):
    return MetaSpikeFormer(**{"arch": ARCH, **kwargs})


@pytest.mark.parametrize(
    ("arch", "backbone", "with_classifier"),
    [
        ("15M", 14_751_208, 15.11e6),
        ("31M", 30_852_864, 31.33e6),
        ("55M", 54_709_248, 55.35e6),
    ],
)
def test_parameter_counts(arch, backbone, with_classifier):
    model = MetaSpikeFormer(arch=arch)
    count = sum(p.numel() for p in model.parameters())
    assert count == backbone
    classifier = (model.out_channels[-1] + 1) * 1000
    assert count + classifier == pytest.approx(with_classifier, abs=0.005e6)


@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("size", [(32, 48), (33, 47), (70, 41)])
@pytest.mark.parametrize("decode", [None, "mean"])
def test_shapes_channels_and_strides(time_steps, size, decode):
    model = build(time_steps=time_steps, out_indices=(0, 1, 2, 3, 4), decode=decode).eval()
    outs = model(torch.rand(2, 3, *size))
    assert model.out_strides == [2, 4, 8, 16, 16]
    assert model.out_channels == [8, 16, 16, 24, 32]
    for out, channels, stride in zip(outs, model.out_channels, model.out_strides, strict=True):
        expected = (2, channels, *(-(-s // stride) for s in size))
        assert out.shape == (expected if decode else (time_steps, *expected))


def test_decode_mean_is_the_mean_over_time():
    model = build(time_steps=4).eval()
    x = torch.rand(1, 3, 32, 32)
    sequences = model(x)
    model.decode = "mean"
    for mean, seq in zip(model(x), sequences, strict=True):
        torch.testing.assert_close(mean, seq.mean(0))


def test_out_indices_select_in_the_given_order_and_later_stages_are_not_run():
    model = build(out_indices=(2, 0)).eval()
    x = torch.rand(1, 3, 32, 32)
    stage2, stem = model(x)
    full = build(out_indices=range(5)).eval()
    full.load_state_dict(model.state_dict())
    outs = full(x)
    assert torch.equal(stage2, outs[2])
    assert torch.equal(stem, outs[0])
    model.stages[3].register_forward_hook(lambda *_: pytest.fail("stage 3 ran"))
    model(x)


def test_an_image_does_not_depend_on_its_neighbours_or_on_earlier_calls():
    model = build(time_steps=2).eval()
    a, b = torch.rand(2, 1, 3, 40, 40)
    alone = model(a)
    model(torch.rand(3, 3, 24, 56))
    beside = model(torch.cat([b, a]))
    for x, y in zip(alone, beside, strict=True):
        torch.testing.assert_close(x[:, 0], y[:, 1], atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_gradient():
    model = build(time_steps=2).train()
    for m in model.modules():  # thresholds low enough for spikes everywhere
        if hasattr(m, "v_threshold"):
            m.v_threshold = 0.1
    sum(y.pow(2).sum() for y in model(torch.rand(2, 3, 64, 64))).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("frozen_stages", [-1, 0, 2, 3])
def test_frozen_stages_take_no_gradient_and_no_statistics(frozen_stages):
    model = build(frozen_stages=frozen_stages).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    sum(y.sum() for y in model(torch.rand(2, 3, 32, 32))).backward()
    after = model.state_dict()
    for i, stage in enumerate(model.stages):
        frozen = i <= frozen_stages
        assert all((p.grad is None) == frozen for p in stage.parameters())
        name = f"stages.{i}.downsample.norm.running_mean"
        assert torch.equal(before[name], after[name]) == frozen


@pytest.mark.parametrize("out_indices", [(0,), (1, 2, 3), (2, 0), (4,)])
@pytest.mark.parametrize("frozen_stages", [-1, 1])
def test_stages_that_nothing_reads_take_no_gradient(out_indices, frozen_stages):
    model = build(out_indices=out_indices, frozen_stages=frozen_stages)
    assert model.state_dict().keys() == build().state_dict().keys()  # the same checkpoints fit
    model.init_weights()
    model.load_state_dict(build().state_dict())
    model.eval().train()
    read = range(frozen_stages + 1, max(out_indices) + 1)
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learning == {n for n, _ in model.named_parameters() if int(n.split(".")[1]) in read}
    outs = model(torch.rand(2, 3, 32, 32))
    if read:
        sum(y.sum() for y in outs).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == learning


def test_a_part_of_the_stages_trains_in_a_distributed_run(tmp_path):
    distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(build(out_indices=(1, 2, 3)).train())
        constructor = MergedGroupsConstructor(
            dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-2, weight_decay=0.1)),
            dict(norm_decay_mult=0.0),
        )
        optim = constructor(model)
        params = dict(model.module.named_parameters())
        before = {n: p.detach().clone() for n, p in params.items()}
        for _ in range(3):  # torch raises in the second step after one without all gradients
            optim.update_params(sum(y.pow(2).mean() for y in model(torch.rand(2, 3, 32, 32))))
        changed = {n.split(".")[1] for n, p in params.items() if not torch.equal(p, before[n])}
        assert changed == {"0", "1", "2", "3"}
    finally:
        distributed.destroy_process_group()


def test_norm_eval_keeps_statistics_but_trains_weights():
    model = build(norm_eval=True).train()
    assert not any(m.training for m in model.modules() if isinstance(m, _BatchNorm))
    assert all(p.requires_grad for p in model.parameters())
    assert model.stages[1].training


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
def test_checkpointing_changes_nothing(drop_path_rate):
    x = torch.rand(2, 3, 64, 64)
    results = []
    for with_cp in (False, True):
        torch.manual_seed(1)
        model = build(time_steps=2, with_cp=with_cp, drop_path_rate=drop_path_rate).train()
        for m in model.modules():  # thresholds low enough for spikes everywhere
            if hasattr(m, "v_threshold"):
                m.v_threshold = 0.1
        torch.manual_seed(2)
        y = model(x)[-1]
        y.pow(2).sum().backward()
        results.append((y, model))
    (y0, plain), (y1, checkpointed) = results
    assert torch.equal(y0, y1)
    if drop_path_rate == 0:
        assert all(p.grad.any() for p in plain.stages[3].parameters() if p.dim() > 1)
    for (name, p0), p1 in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(p0.grad, p1.grad, msg=name)
    for (name, b0), b1 in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(b0, b1), name


def train_step(with_cp):
    """Outputs, gradients, state, and the bytes that one forward pass keeps for the backward."""
    torch.manual_seed(1)
    model = build(time_steps=2, with_cp=with_cp, attn_init_size=(32, 32), neuron_cfg=EAGER).train()
    x, kept = torch.rand(2, 3, 32, 32), {}

    def remember(t):
        kept[t.untyped_storage().data_ptr()] = t  # which lives on, so that no address is reused
        return t

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda t: t):
        ys = model(x)
    sum(y.square().mean() for y in ys).backward()
    grads = [p.grad for p in model.parameters()]
    size = sum(t.untyped_storage().nbytes() for t in kept.values())
    return [*(y.detach() for y in ys), *grads, *model.buffers()], size


def test_checkpointing_stages_changes_nothing_but_the_memory():
    expected, size = train_step(False)
    sizes = [size]
    for with_cp in [(0,), (0, 1), [0, 1, 3], (0, 1, 2, 3), True]:
        results, size = train_step(with_cp)
        for a, b in zip(results, expected, strict=True):
            assert torch.equal(a, b)
        sizes.append(size)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert sizes[2] < 0.7 * sizes[0]  # the first two have the largest maps
    assert train_step(())[1] == sizes[0]
    assert train_step(range(5))[1] == sizes[-1]


@pytest.mark.parametrize("with_cp", [(5,), (-1,), (True,), "0", 1, None, (0.0,)], ids=repr)
def test_refuses_to_checkpoint_what_is_no_stage(with_cp):
    with pytest.raises(ValueError, match=r"with_cp must be a bool, or a sequence of stages from 0"):
        build(with_cp=with_cp)


def test_stochastic_depth_drops_whole_images_at_the_linear_rates():
    model = build(drop_path_rate=0.9, time_steps=2)
    rates = [b.drop_path.drop_prob for s in model.stages for b in s.blocks]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.9)
    steps = [b - a for a, b in itertools.pairwise(rates)]
    assert steps == pytest.approx([0.9 / 11] * 11)

    drop = model.stages[-1].blocks[-1].drop_path.train()
    out = drop(torch.ones(2, 1000, 1, 1, 1))
    assert torch.equal(out[0], out[1])  # all steps of an image share one draw
    kept = (out[0] != 0).float().mean().item()
    assert kept == pytest.approx(0.1, abs=0.04)
    assert out.max().item() == pytest.approx(10)
    assert torch.equal(drop.eval()(out), out)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(arch="16M"), "arch must be one of"),
        (dict(arch=dict(embed_dims=[8, 8, 8], num_heads=1)), "arch must be one of"),
        (dict(arch=dict(embed_dims=[7, 8, 8, 8], num_heads=1)), "even first width"),
        (dict(arch=dict(embed_dims=[8, 8, 9, 8], num_heads=4)), "do not divide among"),
        (dict(time_steps=1.5), "time_steps must be a whole number"),
        (dict(time_steps=0), "time_steps must be a whole number"),
        (dict(decode="max"), "decode must be None or 'mean'"),
        (dict(out_indices=(1, 5)), "out_indices must be"),
        (dict(frozen_stages=5), "frozen_stages must be"),
        (dict(attn_init_size=(0, 4)), r"attn_init_size must be None or \(height, width\)"),
        (dict(attn_init_size=128), r"attn_init_size must be None or \(height, width\)"),
        (dict(attn_scale=0), r"attn_scale must be None \(an average\), or a number above 0"),
        (dict(drop_path_rate=1.0), "drop_path_rate must be"),
        (dict(drop_path_rate="0.1."), "drop_path_rate must be a number"),
        (dict(drop_path_rate=float("nan")), "drop_path_rate must be a number"),
        (dict(out_indices=3), r"out_indices must be .* such as \(1, 2, 3, 4\), got 3"),
        (dict(out_indices="123"), "out_indices must be"),
        (dict(out_indices=()), "out_indices must be"),
        (dict(frozen_stages="all"), "frozen_stages must be a number .* got 'all'"),
        (dict(frozen_stages=None), "frozen_stages must be a number"),
        (dict(in_channels=0), "in_channels must be"),
        (dict(arch=dict(embed_dims=[8, 8, 8, 8], num_heads=0)), r"arch must be .*\(num_heads\)"),
        (dict(arch=dict(embed_dims=[8, 0, 8, 8], num_heads=1)), r"arch must be .*\(embed_dims\)"),
        (dict(arch=dict(embed_dims=8, num_heads=1)), r"arch must be .*\(embed_dims\)"),
        (dict(norm_cfg=dict(type="GN")), "norm_cfg must be .*'GN'"),
        (dict(norm_cfg="BN"), r"norm_cfg must be .* dict\(type='BN'\)"),
        (dict(norm_cfg=dict(type="BN", track_running_stats=False)), "norm_cfg must be"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_norms_without_running_statistics_are_refused():
    with pytest.raises(ValueError, match=r"norm_cfg must be .* of a norm with running statistics"):
        build(norm_cfg=dict(type="GN", num_groups=4))


def test_an_image_without_batch_is_refused():
    with pytest.raises(ValueError, match=r"takes \[B, C, H, W\]"):
        build()(torch.rand(3, 32, 32))


@pytest.mark.parametrize("attn_init_size", [None, (512, 512)])
def test_attention_starts_unsaturated_on_large_images(attn_init_size):
    # it sums over the image: at the firing rate of other layers, 512 x 512 pixels saturate it
    arch = dict(embed_dims=[16, 32, 64, 96], num_heads=4)
    model = build(arch=arch, attn_init_size=attn_init_size).train()
    image = torch.nn.functional.interpolate(torch.randn(1, 3, 16, 16), size=512, mode="bicubic")
    rates = measure_firing_rates(model, lambda: model(image))
    rates = [rate for name, rate in rates.items() if "attn_neuron" in name]
    assert len(rates) == 8
    assert max(rates) < 0.7, rates
    if attn_init_size is not None:
        assert min(rates) > 0.02, rates


def test_image_size_of_the_start_changes_only_q_k_and_v():
    plain = build()
    torch.manual_seed(0)
    fitted = build(attn_init_size=(64, 100))
    for (name, a), b in zip(plain.named_parameters(), fitted.parameters(), strict=True):
        if any(f"{n}_norm.weight" in name for n in "qkv"):
            assert (b > a).all(), name
        else:
            assert torch.equal(a, b), name
