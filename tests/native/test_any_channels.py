"""Kernels on any number of channels, whose pixels and steps do not end where bytes do."""

from __future__ import annotations

import pytest
import torch

from mmspike.native import conv, library
from tests.native.helpers import (
    check_attention,
    check_conv,
    check_depthwise,
    check_neuron,
    check_unpack,
    make_spikes,
)

pytestmark = [
    pytest.mark.skipif(not library.is_available(), reason="kernels not compiled"),
    pytest.mark.usefixtures("instruction_set"),
]
every_size = pytest.mark.parametrize(
    ("channels", "steps"), [(c, t) for c in (1, 3, 4, 12, 20, 180) for t in (1, 2, 3, 4)]
)


@every_size
@pytest.mark.parametrize("bias", [False, True])
def test_convolutions(channels, steps, bias):
    s = make_spikes(steps, 1, channels, 5, 7)
    check_conv(s, 16, (3, 3), (1, 1), (1, 1), bias, False)
    check_conv(s, 5, (1, 1), (1, 1), (0, 0), bias, False)
    check_conv(s, 24, (3, 2), (2, 1), (1, 0), bias, False)


@every_size
def test_lookup_tables(channels, steps):
    s = make_spikes(steps, 3, channels, 3, 5)
    if channels % 4 == 0:
        check_conv(s, 40, (1, 1), (1, 1), (0, 0), True, True)
        check_conv(s, 24, (3, 3), (1, 1), (1, 1), True, True)
        return
    with pytest.raises(ValueError, match="multiple of 4"):
        conv.lay_out_weight(torch.randn(8, channels, 3, 3), True)


@every_size
@pytest.mark.parametrize("side", [3, 7])
def test_depthwise_convolutions(channels, steps, side):
    check_depthwise(make_spikes(steps, 1, channels, 9, 11), side, (side // 2, side // 2))


@every_size
def test_attention(channels, steps):
    check_attention(make_spikes(steps, 1, 3 * channels, 5, 3), 1)
    if channels % 4 == 0:
        check_attention(make_spikes(steps, 3, 3 * channels, 3, 3), 4)


@every_size
def test_unpacked_spikes(channels, steps):
    check_unpack(make_spikes(steps, 1, channels, 5, 3))


@every_size
@pytest.mark.parametrize("normed", [False, True])
def test_neurons(channels, steps, normed):
    check_neuron(steps, 5, channels, normed)


def test_steps_of_no_images():
    geometry = conv.geometry((0, 3, 5, 5), (16, 3, 3, 3), (1, 1), (1, 1))
    bits, laid_out = (
        torch.empty(2, 0, dtype=torch.uint8),
        conv.lay_out_weight(torch.randn(16, 3, 3, 3)),
    )
    assert conv.forward(bits, laid_out, None, geometry).shape == (0, 16, 5, 5)
    assert conv.grad_weight(bits, torch.empty(0, 16, 5, 5), geometry).abs().sum() == 0
