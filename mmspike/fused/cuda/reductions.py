"""What processes tell one another for a ``SyncBatchNorm``, in the form that torch's own uses.

A process whose batch is empty runs torch's norm: what it sends has to fit what the kernels send.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

Gather = Callable[..., Tensor]
Add = Callable[[Tensor], Tensor]


def is_synchronised(norm: nn.Module) -> bool:
    """Whether a norm takes its statistics over several processes."""
    return (
        type(norm) is nn.SyncBatchNorm
        and norm.training
        and dist.is_available()
        and dist.is_initialized()
        and dist.get_world_size(norm.process_group) > 1
    )


def reductions_of(norm: nn.Module) -> tuple[Gather, Add] | tuple[None, None]:
    """How a norm gathers statistics and adds up sums; ``None`` twice if it does for itself."""
    if not is_synchronised(norm):
        return None, None
    group = norm.process_group
    return partial(_gather, group=group), partial(_add, group=group)


def _gather(own: Tensor, *, group: dist.ProcessGroup | None, eps: float) -> Tensor:
    """``[1, 3, C]`` (count, mean, sum of squared distances) to ``[processes, 3, C]``.

    torch sends the mean, one over the standard deviation, and one count behind them.
    """
    count, mean, squares = own[0]
    channels = mean.numel()
    inv_std = torch.rsqrt(squares / count + eps)
    sent = torch.cat([mean, inv_std, count[:1]])
    processes = dist.get_world_size(group)
    came = sent.new_empty(processes * sent.numel())
    dist.all_gather_into_tensor(came, sent, group=group)
    came = came.view(processes, -1)
    means, inv_stds, counts = came.split([channels, channels, 1], dim=1)
    counts = counts.expand(-1, channels)
    variances = (inv_stds.clamp(min=torch.finfo(torch.float32).tiny) ** -2 - eps).clamp(min=0)
    squares = torch.where(counts > 0, variances * counts, 0)  # an empty batch sends zeros
    return torch.stack([counts, means, squares], dim=1)


def _add(sums: Tensor, *, group: dist.ProcessGroup | None) -> Tensor:
    """``[2, C]``, added up over processes."""
    dist.all_reduce(sums, group=group)
    return sums
