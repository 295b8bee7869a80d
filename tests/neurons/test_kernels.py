"""Every fast implementation of the LIF against the reference, forward and gradient."""

from __future__ import annotations

import pytest
import torch

from mmspike.native import library
from mmspike.neurons import LIF, build_surrogate
from mmspike.neurons.functional import lif_multi_step
from mmspike.neurons.kernels import eager, native, select, spikingjelly

DEFAULT = {
    "tau": 2.0,
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "decay_input": True,
    "detach_reset": True,
}


needs_kernels = pytest.mark.skipif(not library.is_available(), reason="kernels not compiled")
IMPLEMENTATIONS = [
    pytest.param(eager, id="eager"),
    pytest.param(native, id="native", marks=needs_kernels),
    pytest.param(spikingjelly, id="spikingjelly"),
]
OURS = IMPLEMENTATIONS[:2]


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


def assert_same(module, x, weight, **change):
    s, grad = run(module.lif_multi_step, x, weight, **change)
    expected_s, expected_grad = run(lif_multi_step, x, weight, **change)
    assert s.dtype == expected_s.dtype
    assert torch.equal(s, expected_s)
    assert 0 < s.float().mean() < 1
    assert grad.dtype == expected_grad.dtype
    rounding = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-3}
    tol = rounding.get(x.dtype, 2e-2)
    torch.testing.assert_close(grad, expected_grad, rtol=tol, atol=tol)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize("time_steps", [*range(1, 9), 11])
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, 0.2, None])
def test_dynamics(module, time_steps, detach_reset, decay_input, v_reset):
    change = {"detach_reset": detach_reset, "decay_input": decay_input, "v_reset": v_reset}
    assert_same(module, *inputs(time_steps), tau=1.7, v_threshold=0.8, **change)


@pytest.mark.parametrize("module", OURS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("time_steps", [1, 4])
def test_types(module, dtype, time_steps):
    assert_same(module, *inputs(time_steps, dtype))


@pytest.mark.parametrize("module", OURS)
@pytest.mark.parametrize("name", sorted(cls.__name__ for cls in eager.SURROGATES))
def test_surrogates(module, name):
    if not module.supports(build_surrogate({"type": name})):
        pytest.skip("left to another")
    assert_same(module, *inputs(3), surrogate={"type": name})
    assert_same(module, *inputs(3), surrogate={"type": name, "alpha": 1.5})


def test_surrogates_that_it_does_not_know_are_refused_beforehand():
    assert not eager.supports(build_surrogate({"type": "S2NN"}))
    smooth = build_surrogate({"type": "Sigmoid", "spiking": False})
    assert not eager.supports(smooth)
    assert not native.supports(build_surrogate({"type": "S2NN"}))
    assert not native.supports(smooth)


@pytest.mark.parametrize("module", OURS)
@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded", "batch_first"])
def test_layouts(module, layout):
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
    assert_same(module, x, weight)


@pytest.mark.parametrize("module", OURS)
def test_the_input_is_all_that_is_kept_for_the_backward_pass(module):
    x = inputs(4)[0].requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()), lambda t: t):
        module.lif_multi_step(x, **DEFAULT, surrogate=build_surrogate(None))
    assert kept == [x.data_ptr()]


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every second": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "the same at every step": lambda x: x[:1].expand_as(x),
    "part": lambda x: torch.cat([x, x], dim=2)[:, :, : x.size(2)],
}


@pytest.mark.parametrize("module", OURS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("time_steps", [1, 3])
@pytest.mark.parametrize("block", [7, 32768])
def test_layouts_and_blocks(module, layout, time_steps, block, monkeypatch):
    monkeypatch.setattr(eager, "BLOCK", block)
    x, weight = inputs(time_steps)
    x = LAYOUTS[layout](x)
    for w in (weight, LAYOUTS["channels last"](weight)):
        leaf = x.detach().requires_grad_()  # keeps the layout
        s = module.lif_multi_step(leaf, **DEFAULT, surrogate=build_surrogate(None))
        (grad,) = torch.autograd.grad(s, leaf, w)
        expected_s, expected_grad = run(lif_multi_step, x.contiguous(), w)
        assert torch.equal(s, expected_s)
        torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-5)
        if layout != "batch first" and layout != "every second" and layout != "part":
            assert s.stride()[1:] == x.stride()[1:]


@pytest.mark.parametrize("module", OURS)
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 0, 4), (2, 1), (3, 1025), (2, 2, 1000, 3)])
def test_odd_shapes(module, shape):
    x = 3 * torch.randn(shape)
    p = {**DEFAULT, "surrogate": build_surrogate(None)}
    assert torch.equal(module.lif_multi_step(x, **p), lif_multi_step(x, **p))


@pytest.mark.parametrize("tau", [2.0, 1.7, 3.0, 1.1, 100.0])
@pytest.mark.parametrize("v_threshold", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("v_reset", [0.0, None, 0.1])
@pytest.mark.parametrize("decay_input", [True, False])
def test_one_comparison_decides_as_the_reference_does(tau, v_threshold, v_reset, decay_input):
    change = dict(tau=tau, v_threshold=v_threshold, v_reset=v_reset, decay_input=decay_input)
    p = {**DEFAULT, **change, "surrogate": build_surrogate(None)}
    exact = (v_threshold - (v_reset or 0.0)) * (tau if decay_input else 1.0)
    near = [torch.tensor(exact)]
    for direction in (9e9, -9e9):
        at = near[0]
        for _ in range(40):
            at = torch.nextafter(at, torch.tensor(direction))
            near.append(at)
    x = torch.stack(near)[None]
    slow = lif_multi_step(x, **p)
    assert 0 < slow.mean() < 1
    modules = [eager, native] if library.is_available() else [eager]
    for module in modules:
        assert torch.equal(module.lif_multi_step(x, **p), slow)
        for dtype in (torch.float16, torch.bfloat16):
            y = torch.linspace(exact - 0.1, exact + 0.1, 999).to(dtype)[None]
            assert torch.equal(module.lif_multi_step(y, **p), lif_multi_step(y, **p))


@needs_kernels
@pytest.mark.parametrize("dtype", library.DTYPES, ids=str)
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set(dtype):
    assert_same(native, *inputs(5, dtype))


def test_backends_give_the_same():
    x, weight = inputs(4)
    s, grad = run(lif_multi_step, x, weight)
    for backend in ("auto", "torch", "eager", "spikingjelly", *["native"] * library.is_available()):
        leaf = x.clone().requires_grad_()
        out = LIF(backend=backend)(leaf)
        out.backward(weight)
        assert torch.equal(out, s)
        torch.testing.assert_close(leaf.grad, grad, rtol=1e-5, atol=1e-5)


def test_backends_that_cannot_are_refused(monkeypatch):
    x = inputs(2)[0]
    with pytest.raises(ValueError, match="backend must be one of"):
        LIF(backend="numpy")
    with pytest.raises(RuntimeError, match="'cupy' runs on cuda, the input is on cpu"):
        LIF(backend="cupy")(x)
    with pytest.raises(RuntimeError, match="'triton' runs on cuda, the input is on cpu"):
        LIF(backend="triton")(x)
    with pytest.raises(RuntimeError, match="'eager' has no backward pass for S2NN"):
        LIF(backend="eager", surrogate={"type": "S2NN"})(x)
    monkeypatch.setattr(native, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="was not compiled"):
        LIF(backend="native")(x)


def test_without_kernels_torch_runs_and_one_warning_says_so(monkeypatch):
    x = inputs(2)[0]
    expected = LIF(backend="torch")(x)
    said = []
    monkeypatch.setattr(native, "is_available", lambda: False)
    monkeypatch.setattr(select, "print_log", lambda text, *_, **__: said.append(text))
    select._warn.cache_clear()
    for _ in range(3):
        assert torch.equal(LIF()(x), expected)
    assert len(said) == 1
    assert "not compiled" in said[0]
    select._warn.cache_clear()


@pytest.mark.parametrize(
    ("has_triton", "has_cupy", "dtype", "steps", "expected"),
    [
        (True, True, torch.float16, 4, "triton"),
        (True, False, torch.float32, 16, "triton"),
        (True, True, torch.float32, 17, "cupy"),
        (True, True, torch.float64, 1, "cupy"),
        (False, True, torch.bfloat16, 1, "cupy"),
        (True, False, torch.float64, 1, "eager"),
        (False, False, torch.float16, 1, "eager"),
    ],
)
def test_on_a_gpu_auto_picks_by_rule(monkeypatch, has_triton, has_cupy, dtype, steps, expected):
    class OnGPU:
        """What is asked of an input."""

        device = torch.device("cuda")

        def __init__(self):
            self.dtype = dtype

        def size(self, _):
            return steps

    said = []
    monkeypatch.setattr(select.triton, "is_available", lambda: has_triton)
    monkeypatch.setattr(select.cupy, "is_available", lambda: has_cupy)
    monkeypatch.setattr(select, "_warn", said.append)
    assert select.choose(OnGPU(), build_surrogate(None)) == expected
    assert select.choose(OnGPU(), build_surrogate({"type": "S2NN"})) == "torch"
    assert bool(said) == (expected == "eager")
