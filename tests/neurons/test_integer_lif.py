"""Integer LIF: the reference by hand, the fast way against it, the module, what is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmspike.neurons import IntegerLIF, build_neuron, count_of, levels_of, unit_of
from mmspike.neurons.functional import integer_lif_multi_step as reference
from mmspike.neurons.kernels.integer import integer_lif_multi_step

STEPS = [1, 2, 5]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def inputs(steps, dtype=torch.float32):
    """Potentials within and around the window, ties and ends included."""
    x = torch.randn(steps, 3, 4, 5) * 3 + 1
    x[:, 0] = torch.tensor([-1.0, 0.0, 0.5, 1.5, 2.5])
    x[:, 1, :2] = torch.tensor([3.5, 4.0, 4.5, 7.0, -0.0])
    return x.to(dtype).requires_grad_()


@pytest.mark.parametrize(
    ("x", "n"), [(-0.1, 0), (0.5, 0), (0.51, 1), (1.5, 2), (2.5, 2), (3.5, 4), (4.0, 4), (99, 4)]
)
def test_rounds_ties_to_even(x, n):
    x_seq = torch.tensor([[float(x)]])
    assert IntegerLIF(levels=4, normalize=False)(x_seq).item() == n
    assert IntegerLIF(levels=4)(x_seq).item() == n / 4


@pytest.mark.parametrize(("x", "inside"), [(-0.01, 0), (0.0, 1), (2.2, 1), (4.0, 1), (4.01, 0)])
def test_window_of_the_gradient_is_closed(x, inside):
    x_seq = torch.tensor([[float(x)]], requires_grad=True)
    IntegerLIF(levels=4)(x_seq).backward()
    assert x_seq.grad.item() == inside / 4


def test_leaks_and_subtracts():
    neuron = IntegerLIF(levels=2, beta=0.5, normalize=False)
    # u: 3.2 -> 2, left 0.6; 0.6 + 0.3 = 0.9 -> 1, left -0.05; 0.35 -> 0
    out = neuron(torch.tensor([3.2, 0.3, 0.4]).view(3, 1))
    assert out.flatten().tolist() == [2.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("steps", STEPS)
def test_is_the_reference(steps, detach_reset, normalize, dtype):
    args = (3, 0.7, normalize, detach_reset)
    ours, theirs = inputs(steps, dtype), None
    theirs = ours.detach().clone().requires_grad_()
    a, b = integer_lif_multi_step(ours, *args), reference(theirs, *args)
    assert torch.equal(a, b)
    assert a.dtype == dtype
    grad = torch.randn_like(a)
    a.backward(grad)
    b.backward(grad)
    exact = dtype in (torch.float32, torch.float64)
    tolerance = dict(rtol=1e-5, atol=1e-6) if exact else dict(rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(ours.grad, theirs.grad, **tolerance)
    with torch.no_grad():
        assert torch.equal(integer_lif_multi_step(ours, *args), a)


def test_gradient_of_the_reference_by_hand():
    x = torch.tensor([[0.7], [0.9], [9.0]], dtype=torch.float64, requires_grad=True)
    # u: 0.7 (n 1), 0.9 - 0.15 = 0.75 (n 1), above the window; h = 0.5 (u - n), n detached
    reference(x, 2, 0.5, False, True).sum().backward()
    assert x.grad.flatten().tolist() == [1 + 0.5, 1.0, 0.0]


@pytest.mark.parametrize("last", [True, False])
def test_keeps_a_byte_an_element_and_the_layout(last):
    x = torch.randn(2, 2, 8, 6, 7)
    if last:
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    x.requires_grad_()
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    with hooks:
        y = IntegerLIF()(x)
    assert [(t.dtype, t.numel()) for t in kept] == [(torch.bool, x.numel())]
    assert y.stride() == x.stride()
    y.sum().backward()
    assert x.grad.stride() == x.stride()


def test_takes_a_map_shown_again_and_again():
    x = torch.randn(1, 8, 6, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = IntegerLIF()(x.expand(3, *x.shape))
    assert y[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, reference(x.expand(3, *x.shape), 4, 0.5, True, True))
    y.sum().backward()
    assert x.grad.abs().sum() > 0


def test_compiles_to_the_same():
    neuron = IntegerLIF()
    compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True)
    x, y = inputs(2), inputs(2)
    y.data.copy_(x)
    a, b = neuron(x), compiled(y)
    assert torch.equal(a, b)
    a.sum().backward()
    b.sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("normalize", [True, False])
def test_says_what_it_gives(normalize):
    neuron = build_neuron(dict(type="mmspike.IntegerLIF", levels=3, normalize=normalize))
    out = neuron(inputs(2).detach())
    assert levels_of(neuron) == 3
    counts = count_of(out, unit_of(neuron))
    assert torch.equal(counts, counts.round())
    assert set(counts.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert nn.Module.__repr__(neuron).startswith("IntegerLIF(levels=3")


@pytest.mark.parametrize(
    "wrong",
    [dict(levels=0), dict(levels=256), dict(levels=2.0), dict(beta=1.1), dict(beta=float("nan"))],
    ids=str,
)
def test_refuses_what_makes_no_sense(wrong):
    with pytest.raises(ValueError, match=f"IntegerLIF: {next(iter(wrong))} must be"):
        IntegerLIF(**wrong)
