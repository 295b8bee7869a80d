from __future__ import annotations

import json
import logging

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.runner import Runner
from torch import nn

from mmspike.engine.spike_stats_hook import SpikeStatsHook
from mmspike.neurons import LIF


class Net(BaseModel):
    """Three layers of neurons: one silent, one saturated, one at 50 %; T = 2."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.dead, self.full, self.some, self.unused = LIF(), LIF(), LIF(), LIF()
        self.recovers_at = None
        self.calls = 0

    def forward(self, inputs, mode="loss"):
        self.calls += 1
        x = torch.ones(2, 4) * self.weight / self.weight.detach()  # [T, N]
        alive = self.recovers_at is not None and self.calls >= self.recovers_at
        s = self.dead(9 * x if alive else -x) + self.full(9 * x)
        s = s + self.some(x * torch.tensor([9.0, 9.0, -9.0, -9.0]))
        return {"loss": s.mean()}


def train(tmp_path, model, iterations, **options):
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=[torch.zeros(1)] * 4,
            sampler=dict(type="InfiniteSampler"),
            batch_size=1,
            num_workers=0,
        ),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.0)),
        custom_hooks=[dict(type="mmspike.SpikeStatsHook", **options)],
        default_hooks=dict(logger=dict(type="LoggerHook", interval=1), checkpoint=None),
        log_processor=dict(by_epoch=False),
        experiment_name=tmp_path.name,
    )
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    runner.logger.addHandler(handler)
    runner.train()
    (scalars,) = tmp_path.glob("*/vis_data/scalars.json")
    return messages, [json.loads(line) for line in scalars.read_text().splitlines()]


def test_rates_are_logged_and_dead_layers_named(tmp_path):
    model = Net()
    messages, records = train(tmp_path, model, 4, interval=2)
    rates = [r for r in records if "firing_rate/mean" in r]
    assert [r["step"] for r in rates] == [2, 4]
    for record in rates:
        assert record["firing_rate/dead"] == 0
        assert record["firing_rate/full"] == 1
        assert record["firing_rate/some"] == 0.5
        assert record["firing_rate/mean"] == 0.5
        assert "firing_rate/unused" not in record
    assert any("firing_rate: 0.5000" in m for m in messages)  # the line of the text log
    silent = [m for m in messages if "layers of neurons silent" in m]
    saturated = [m for m in messages if "layers of neurons saturated" in m]
    assert silent == [
        "iteration 2: layers of neurons silent, firing rate below 0.10%: dead (0.00%)"
    ]  # once
    assert saturated == [
        "iteration 2: layers of neurons saturated, firing rate above 90%: full (100.00%)"
    ]
    assert not any(m._forward_hooks for m in model.modules())


def test_a_layer_that_recovers_is_named_again_when_it_falls(tmp_path):
    model = Net()
    model.recovers_at = 2
    hook = dict(interval=1, silent=0.2)
    messages, _ = train(tmp_path, model, 3, **hook)
    assert len([m for m in messages if "silent" in m]) == 1
    model.recovers_at = None
    model.calls = 0
    messages, _ = train(tmp_path / "again", model, 1, **hook)
    assert len([m for m in messages if "silent" in m]) == 1


def test_found_by_name_from_any_scope():
    hook = MMENGINE_HOOKS.build(dict(type="mmspike.SpikeStatsHook", interval=7))
    assert isinstance(hook, SpikeStatsHook)
    assert hook.interval == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(interval=0), "interval must be at least 1, got 0"),
        (dict(silent=0.9, saturated=0.5), "silent < saturated"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        SpikeStatsHook(**options)
