from __future__ import annotations

import pytest
import torch
from torch import nn

from mmspike.deploy.folding import fold_rep_convs
from mmspike.layers.rep_conv import RepConv


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (2, 3)])
@pytest.mark.parametrize("affine", [True, False])
def test_one_convolution_equals_rep_conv(size, affine):
    module = RepConv(6, dict(type="BN", affine=affine)).train()
    for _ in range(3):
        module(torch.randn(4, 6, 8, 8))  # statistics
    module.eval()
    if affine:
        for norm in (module.norm1, module.norm2):
            nn.init.uniform_(norm.weight, -1, 1)
            nn.init.uniform_(norm.bias, -1, 1)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    folded = fold_rep_convs([module], [nn.Identity()])
    x = (torch.rand(2, 6, *size) > 0.5).float()
    torch.testing.assert_close(folded(x), module(x), rtol=1e-4, atol=1e-5)
    assert folded.weight.shape == (6, 6, 3, 3)
    assert not folded.training
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
