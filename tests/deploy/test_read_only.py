"""No write to the weights of a deployed model goes unseen."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import get_state_dict, weights_to_cpu
from torch import nn
from torch.func import functional_call

from mmspike.deploy import switch_to_deploy
from mmspike.fused import can_lay_out
from mmspike.fused.cpu.laid_out import LaidOutConv2d, LaidOutLinear
from mmspike.fused.cpu.read_only import ReadOnlyWeight
from mmspike.layers.conv import spike_conv

pytestmark = pytest.mark.skipif(not can_lay_out(), reason="no oneDNN")
X = torch.randn(2, 8, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["conv", "linear"])
def layers(request):
    """A plain layer, and its twin with weights laid out, which has run."""
    if request.param == "conv":
        plain, x = nn.Conv2d(8, 8, 3, padding=1), X
        laid_out = LaidOutConv2d(plain)
    else:
        plain, x = nn.Linear(8, 8), X.flatten(2).mean(-1)
        laid_out = LaidOutLinear(plain)
    with torch.no_grad():
        torch.testing.assert_close(laid_out(x), plain(x), rtol=1e-4, atol=1e-5)
    assert laid_out.weight.layouts
    return plain, laid_out, x


def twice(weight):
    return 2 * weight.detach()


def step(weight):
    weight.grad = torch.ones(weight.shape)
    torch.optim.SGD([weight], lr=1.0).step()


def below_autograd(weight):
    with torch.inference_mode():
        weight.data.mul_(2)


WRITES = {
    "in place": lambda w: w.mul_(2),
    "data": lambda w: w.data.mul_(2),
    "detached": lambda w: w.detach().mul_(2),
    "another data": lambda w: setattr(w, "data", torch.zeros(w.shape)),
    "an item": lambda w: w.__setitem__(0, 0.0),
    "a mask": lambda w: w.__setitem__(w > 0, 0.0),
    "a view": lambda w: w.data.flatten().zero_(),
    "a row": lambda w: w[0].zero_(),
    "a part": lambda w: w.unbind()[1].zero_(),
    "other bits": lambda w: w.view(torch.int32).zero_(),
    "copied over": lambda w: w.copy_(torch.zeros(w.shape)),
    "out": lambda w: torch.add(torch.ones(w.shape), 1, out=w),
    "several": lambda w: torch._foreach_add_([w], 1.0),
    "initialised": nn.init.normal_,
    "optimizer": step,
    "inference mode": below_autograd,
    "NumPy": lambda w: w.numpy().fill(0),
    "NumPy of data": lambda w: w.data.numpy().fill(0),
    "NumPy's own": lambda w: np.asarray(w).fill(0),
    "DLPack": lambda w: torch.from_dlpack(w).zero_(),
    "storage": lambda w: w.untyped_storage().fill_(0),
    "pointer": lambda w: w.data_ptr(),
}


@pytest.mark.parametrize("how", WRITES)
@torch.no_grad()
def test_a_write_is_refused(layers, how):
    _, laid_out, x = layers
    before = laid_out(x)
    for weight in (
        laid_out.weight,
        laid_out.state_dict()["weight"],
        dict(laid_out.named_parameters())["weight"],
    ):
        with pytest.raises(
            (RuntimeError, TypeError), match=r"read-only|numpy\(\) is not supported"
        ):
            WRITES[how](weight)
    assert torch.equal(laid_out(x), before)


@torch.no_grad()
def test_what_it_was_made_from_is_not_it(layers):
    plain, laid_out, x = layers
    before = laid_out(x)
    plain.weight.data.zero_()
    assert torch.equal(laid_out(x), before)


@pytest.mark.parametrize("grad", [True, False])
def test_another_weight_in_its_place_is_used(layers, grad):
    plain, laid_out, x = layers
    weight = twice(plain.weight)
    other = functional_call(plain, {"weight": weight}, x)
    with torch.set_grad_enabled(grad):
        called = functional_call(laid_out, {"weight": weight}, x)
        torch.testing.assert_close(called, other, rtol=1e-4, atol=1e-5)
        laid_out.weight = nn.Parameter(weight, requires_grad=False)
        torch.testing.assert_close(laid_out(x), other, rtol=1e-4, atol=1e-5)
        laid_out.weight.data.zero_()
        torch.testing.assert_close(
            laid_out(x) - laid_out.bias.view(-1, *[1] * (x.dim() - 2)), 0 * other
        )
        laid_out.bias.data.fill_(1)
        torch.testing.assert_close(laid_out(x), torch.ones_like(other))


def pickled(layer):
    return pickle.loads(pickle.dumps(layer))


def saved(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": pickled,
    "torch.save": saved,
    "shared": lambda layer: layer.share_memory(),
    "there and back": lambda layer: layer.double().float(),
    "channels last": lambda layer: layer.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("how", COPIES)
@torch.no_grad()
def test_copies_compute_the_same_and_stay_laid_out(layers, how):
    plain, laid_out, x = layers
    expected = laid_out(x)
    other = COPIES[how](laid_out)
    assert isinstance(other.weight, ReadOnlyWeight)
    assert torch.equal(other(x), expected)
    assert other.weight.layouts
    other.load_state_dict({"weight": twice(plain.weight), "bias": plain.bias})
    assert not torch.equal(other(x), expected)
    if how in ("deepcopy", "pickle", "torch.save"):
        assert torch.equal(laid_out(x), expected)


@pytest.mark.parametrize("inside", [True, False])
def test_inference_mode(layers, inside):
    plain, laid_out, x = layers
    state = {"weight": twice(plain.weight), "bias": plain.bias.detach().clone()}
    expected = functional_call(plain, state, x)
    with torch.inference_mode(inside):
        laid_out = type(laid_out)(plain)
        laid_out.load_state_dict(state)
    with torch.inference_mode():
        torch.testing.assert_close(laid_out(x), expected, rtol=1e-4, atol=1e-5)
        for weight in (laid_out.weight.data, copy.deepcopy(laid_out).state_dict()["weight"]):
            assert torch.equal(weight.flatten(), state["weight"].flatten())
        torch.testing.assert_close(
            laid_out.double()(x.double()), expected.double(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("assign", [True, False])
@torch.no_grad()
def test_loading_copies(layers, assign):
    plain, laid_out, x = layers
    state = {"weight": twice(plain.weight), "bias": plain.bias.detach().clone()}
    laid_out.load_state_dict(state, assign=assign)
    expected = functional_call(plain, state, x)
    torch.testing.assert_close(laid_out(x), expected, rtol=1e-4, atol=1e-5)
    state["weight"].zero_()
    torch.testing.assert_close(laid_out(x), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="size mismatch"):
        laid_out.load_state_dict({"weight": torch.zeros(1), "bias": plain.bias})
    torch.testing.assert_close(laid_out(x), expected, rtol=1e-4, atol=1e-5)


def test_files_hold_ordinary_weights(layers):
    plain, laid_out, _ = layers
    for state in (laid_out.state_dict(), weights_to_cpu(get_state_dict(laid_out))):
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        assert type(loaded["weight"]) is torch.Tensor
        assert torch.equal(loaded["weight"], plain.weight)


def test_reads_as_any_parameter(layers):
    plain, laid_out, _ = layers
    weight = laid_out.weight
    assert isinstance(weight, nn.Parameter)
    assert [name for name, _ in laid_out.named_parameters()] == ["weight", "bias"]
    assert (weight.shape, weight.dtype, weight.device) == (
        *(plain.weight.shape, plain.weight.dtype, plain.weight.device),
    )
    assert torch.equal(weight + 1, plain.weight + 1)
    assert weight.tolist() == plain.weight.tolist()
    assert weight.clone().zero_().sum() == 0
    assert "ReadOnlyWeight(" in repr(weight)


@torch.no_grad()
def test_a_deployed_model_says_so():
    model = spike_conv(8, 8, 3, norm_cfg=dict(type="BN")).eval()
    x = 3 * X[None]
    laid_out, free = copy.deepcopy(model), copy.deepcopy(model)
    switch_to_deploy(laid_out)
    switch_to_deploy(free, lay_out=False)
    expected = laid_out(x)
    with pytest.raises(RuntimeError, match=r"deploy with lay_out=False"):
        next(laid_out.parameters()).data.mul_(2)
    assert torch.equal(laid_out(x), expected)
    torch.testing.assert_close(free(x), expected, rtol=1e-4, atol=1e-5)
    for parameter in free.parameters():
        parameter.data.mul_(2)
    torch.testing.assert_close(free(x), 2 * expected, rtol=1e-4, atol=1e-5)
    laid_out.load_state_dict(free.state_dict())
    torch.testing.assert_close(laid_out(x), 2 * expected, rtol=1e-4, atol=1e-5)
