"""The new layer of docs/architecture.md, as it stands there."""

from __future__ import annotations

import re

import torch

from mmspike import fused
from mmspike.deploy import switch_to_deploy
from mmspike.energy import measure
from tests.conftest import ROOT


def test_the_example_trains_is_counted_and_folded():
    text = (ROOT / "docs/architecture.md").read_text()
    (code,) = re.findall(r"```python\n(from torch import nn\n.*?)```", text, re.DOTALL)
    names = {}
    exec(code, names)
    assert len(code.strip().splitlines()) <= 10
    layer = names["DilatedSpikeConv"](8, 16)
    x = (3 * torch.randn(2, 2, 8, 9, 9)).requires_grad_()
    report = fused.explain(layer, x)
    assert report.plain == {"": "the kernels do not know dilation (2, 2)"}
    assert report.plain[""] in text
    layer(x).pow(2).mean().backward()
    assert x.grad.abs().sum() > 0
    layer.eval()
    energy = measure(layer, [x.detach()])
    assert sum(energy.layers[0].synops) > 0
    expected = layer(x)
    switch_to_deploy(layer)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
