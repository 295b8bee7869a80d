"""No map changes its layout between the layers of a backbone, a neck and heads."""

from __future__ import annotations

import pytest

from mmspike import fused
from mmspike.fused import memory, reasons
from tests.det import helpers as det
from tests.fused.cuda.helpers import DEVICE, ENGINE_MARKS, INTERPRETED
from tests.fused.cuda.layouts import NORMS_BACKWARD, LayoutWatch
from tests.seg import helpers as seg

pytestmark = [
    *ENGINE_MARKS,
    pytest.mark.usefixtures("cuda_engine"),
    pytest.mark.skipif(INTERPRETED, reason="takes minutes; the stand-in shows the same"),
]

CLASSES, NECK, ROI_LEVELS = 4, 64, 4
"""Of the models below."""


def is_hosts(change):
    """Whether a host asks for it: the image, its losses, and RoIAlign, which wants channels first.

    mmcv gives the gradients of RoIAlign's inputs with the channels first, too.
    """
    if change.where != "backward":
        return change.where in ("in_fastest_format", "time_to_channels", "in_channels_last")
    if change.operator == "convolution_backward":
        return change.shape[1] == CLASSES  # gradient of the logits
    if change.operator == "clone":
        return change.shape[-2:] in ((7, 7), (14, 14))  # gradient of RoI features
    return change.operator in NORMS_BACKWARD and change.shape[1] == NECK


@pytest.mark.parametrize("host", ["seg", "det"])
@pytest.mark.parametrize("time_steps", [1, 2])
def test_layers_keep_the_layout(host, time_steps, monkeypatch):
    monkeypatch.setattr(reasons, "_get_current_dispatch_mode", lambda: None)
    monkeypatch.setattr(memory, "is_channels_last_device", lambda _: True)
    helpers = {"seg": seg, "det": det}[host]
    model = helpers.build(helpers.small_config(time_steps)).to(DEVICE).train()
    batch = helpers.make_batch(model, size=(64, 96))
    watch = LayoutWatch()
    with fused.explained(model) as explanation, watch:
        losses = model.loss(batch["inputs"], batch["data_samples"])
        total = sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k)
        total.backward()
    assert len(explanation.fused) > 40
    assert len(watch.seen) > 100
    changes = [c for c in watch.changes if not is_hosts(c)]
    assert not changes, "\n".join(map(str, changes))
    norms = [c for c in watch.changes if c.operator in NORMS_BACKWARD]
    assert len(norms) <= (ROI_LEVELS if host == "det" else 0)
