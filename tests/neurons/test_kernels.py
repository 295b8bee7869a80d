"""Every fast implementation of the LIF against the reference, forward and gradient."""

from __future__ import annotations

import pytest
import torch

from mmspike.neurons import build_surrogate
from mmspike.neurons.functional import lif_multi_step
from mmspike.neurons.kernels import eager

DEFAULT = {
    "tau": 2.0,
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "decay_input": True,
    "detach_reset": True,
}


def run(implementation, x, weight, surrogate=None, **change):
    """Spikes, and the gradient of their weighted sum."""
    x = x.detach().requires_grad_()
    s = implementation(x, **{**DEFAULT, **change}, surrogate=build_surrogate(surrogate))
    s.backward(weight)
    return s, x.grad


def inputs(time_steps, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(time_steps, 3, 4, 5, 6, generator=g) * 2 + 0.5
    return x.to(dtype), torch.randn(x.shape, generator=g).to(dtype)


def assert_same(x, weight, **change):
    s, grad = run(eager.lif_multi_step, x, weight, **change)
    expected_s, expected_grad = run(lif_multi_step, x, weight, **change)
    assert s.dtype == expected_s.dtype
    assert torch.equal(s, expected_s)
    assert 0 < s.float().mean() < 1
    assert grad.dtype == expected_grad.dtype
    rounding = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-3}
    tol = rounding.get(x.dtype, 2e-2)
    torch.testing.assert_close(grad, expected_grad, rtol=tol, atol=tol)


@pytest.mark.parametrize("time_steps", range(1, 9))
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, 0.2, None])
def test_dynamics(time_steps, detach_reset, decay_input, v_reset):
    change = {"detach_reset": detach_reset, "decay_input": decay_input, "v_reset": v_reset}
    assert_same(*inputs(time_steps), tau=1.7, v_threshold=0.8, **change)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_types(dtype):
    assert_same(*inputs(4, dtype))


@pytest.mark.parametrize("name", sorted(cls.__name__ for cls in eager.SURROGATES))
def test_surrogates(name):
    assert_same(*inputs(3), surrogate={"type": name})
    assert_same(*inputs(3), surrogate={"type": name, "alpha": 1.5})


def test_surrogates_that_it_does_not_know_are_refused_beforehand():
    assert not eager.supports(build_surrogate({"type": "S2NN"}))
    smooth = build_surrogate({"type": "Sigmoid", "spiking": False})
    assert not eager.supports(smooth)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded", "batch_first"])
def test_layouts(layout):
    x, weight = inputs(4)
    if layout == "channels_last":
        x = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 3))
    elif layout == "sliced":
        x, weight = x[..., ::2, 1:], weight[..., ::2, 1:]
    elif layout == "expanded":
        x = x[:1].expand(4, -1, -1, -1, -1)
    else:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert not x.is_contiguous()
    assert_same(x, weight)


def test_the_input_is_all_that_is_kept_for_the_backward_pass():
    x = inputs(4)[0].requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()), lambda t: t):
        eager.lif_multi_step(x, **DEFAULT, surrogate=build_surrogate(None))
    assert kept == [x.data_ptr()]
