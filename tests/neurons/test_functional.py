"""The reference dynamics, against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from mmspike.neurons import build_surrogate
from mmspike.neurons.functional import lif_charge, lif_multi_step, lif_reset


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("decay_input", "v_reset", "expected"),
    [(True, 0.0, 1.25), (True, 0.2, 1.35), (False, 0.0, 2.25), (True, None, 1.25)],
)
def test_charge(decay_input, v_reset, expected):
    # v = 0.5, x = 2, tau = 2
    h = lif_charge(tensor(2.0), tensor(0.5), 2.0, v_reset, decay_input)
    assert h.item() == pytest.approx(expected)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, 0.2, None])
def test_charge_at_rest_is_a_charge_from_the_resting_potential(decay_input, v_reset):
    rest = tensor(v_reset or 0.0)
    expected = lif_charge(tensor(1.5), rest, 2.0, v_reset, decay_input)
    assert torch.allclose(lif_charge(tensor(1.5), None, 2.0, v_reset, decay_input), expected)


def test_reset_to_a_value_or_by_subtraction():
    h, s = tensor(0.4, 1.5), tensor(0, 1)
    assert lif_reset(h, s, 1.0, 0.0, True).tolist() == [0.4, 0.0]
    assert lif_reset(h, s, 1.0, 0.1, True).tolist() == [0.4, pytest.approx(0.1)]
    assert lif_reset(h, s, 1.0, None, True).tolist() == [0.4, 0.5]


@pytest.mark.parametrize(
    ("v_reset", "inputs", "spikes"),
    [
        # h: 0.75, then 0.375 + 0.9 = 1.275 fires, then from 0: 0.5
        (0.0, [1.5, 1.8, 1.0], [0, 1, 0]),
        # the same, but 0.275 is left: 0.1375 + 0.9 = 1.0375 fires again
        (None, [1.5, 1.8, 1.8], [0, 1, 1]),
        # reaching the threshold fires
        (0.0, [2.0, 0.0, 2.0], [1, 0, 1]),
    ],
)
def test_spikes_of_one_neuron(v_reset, inputs, spikes):
    out = lif_multi_step(tensor(*inputs)[:, None], v_reset=v_reset, surrogate=build_surrogate(None))
    assert out.flatten().tolist() == spikes


@pytest.mark.parametrize("detach_reset", [True, False])
def test_gradient_against_the_chain_rule_by_hand(detach_reset):
    x = tensor(2.4, 1.0)[:, None].requires_grad_()
    surrogate = build_surrogate({"type": "Sigmoid", "alpha": 4.0})
    s = lif_multi_step(x, surrogate=surrogate, detach_reset=detach_reset)
    s[1].sum().backward()

    def slope(h):
        p = torch.sigmoid(4 * (tensor(h) - 1))
        return (4 * p * (1 - p)).item()

    # h0 = 1.2 fires, v = (1 - s0) * h0 = 0, h1 = v / 2 + 0.5
    dv_dh0 = 0.0 if detach_reset else -1.2 * slope(1.2)
    expected = [slope(0.5) * 0.5 * dv_dh0 * 0.5, slope(0.5) * 0.5]
    assert x.grad.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_potential_in_float32(dtype):
    # in bfloat16, 0.5 + 0.0039 / 2 is 0.5; repeated input never reaches the threshold by rounding
    x = torch.full((6, 1), 2.0 - 2**-7, dtype=dtype)
    out = lif_multi_step(x, surrogate=build_surrogate(None))
    expected = lif_multi_step(x.float(), surrogate=build_surrogate(None))
    assert out.dtype == dtype
    assert torch.equal(out.float(), expected)
