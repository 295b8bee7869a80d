"""What processes send for a ``SyncBatchNorm``: the same as torch's own norm."""

from __future__ import annotations

import torch
import torch.distributed as dist

from mmspike.fused.cuda import reductions

EPS = 1e-5


def numbers(x):
    """Count, mean and squared distances of ``[N, C]``, ``[3, C]``."""
    return torch.stack(
        [torch.full((x.size(1),), len(x)), x.mean(0), (x - x.mean(0)).square().sum(0)]
    )


def test_statistics_travel_as_torchs(monkeypatch):
    mine, other = torch.randn(12, 5) + 3, 2 * torch.randn(20, 5)
    mean, inv_std = other.mean(0), torch.rsqrt(other.var(0, unbiased=False) + EPS)
    theirs = torch.cat([mean, inv_std, torch.tensor([20.0])])  # torch's format
    empty = torch.zeros(11)  # what a process without a single value sends
    sent = []

    def all_gather(out, x, group):
        sent.append(x)
        out.copy_(torch.cat([x, theirs, empty]))

    monkeypatch.setattr(dist, "get_world_size", lambda group: 3)
    monkeypatch.setattr(dist, "all_gather_into_tensor", all_gather)
    parts = reductions._gather(numbers(mine)[None], group=None, eps=EPS)
    expected = torch.stack([numbers(mine), numbers(other), torch.zeros(3, 5)])
    torch.testing.assert_close(parts, expected, rtol=1e-5, atol=1e-4)
    inv_std = torch.rsqrt(mine.var(0, unbiased=False) + EPS)
    torch.testing.assert_close(sent[0], torch.cat([mine.mean(0), inv_std, torch.tensor([12.0])]))


def test_a_norm_alone_tells_nobody():
    assert reductions.reductions_of(torch.nn.SyncBatchNorm(4)) == (None, None)
    assert reductions.reductions_of(torch.nn.BatchNorm2d(4)) == (None, None)
