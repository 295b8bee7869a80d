"""Runs of several processes, also without accelerators, which mmengine and torch do not offer.

mmengine asks for the CUDA device of the rank and for the backend nccl, whatever the machine has; it
hands ``DistributedDataParallel`` a device number, which that refuses for a model on the CPU; and
torch's ``SyncBatchNorm`` refuses tensors there.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast, init_dist
from mmengine.model import MMDistributedDataParallel
from mmengine.utils.dl_utils import set_multi_processing
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike.registry import MODEL_WRAPPERS

_WRAPPERS = (None, "MMDistributedDataParallel", "mmengine.MMDistributedDataParallel")


def start_processes(cfg: Config) -> None:
    """Prepare a distributed run, and join its other processes if there is no accelerator.

    Running statistics become those of rank 0 in each step, unless ``model_wrapper_cfg`` says
    otherwise: a checkpoint holds no others, and blocks with a padding (``RepConv``) compute with
    them in training. Without an accelerator, the backend is gloo, and the model's wrapper
    :class:`DistributedOnCPU`. Without a launcher, nothing happens.

    Args:
        cfg: Config with ``launcher``; its ``model_wrapper_cfg`` is changed.
    """
    if cfg.get("launcher", "none") == "none":
        return
    wrapper = cfg.get("model_wrapper_cfg") or {
        "type": "MMDistributedDataParallel",
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
        "broadcast_buffers": True,
    }
    if get_device() == "cpu":
        _join_on_cpu(cfg)
        if wrapper.get("type") in _WRAPPERS:
            wrapper = {**wrapper, "type": "mmspike.DistributedOnCPU"}
    cfg.model_wrapper_cfg = wrapper


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of rank 0, running statistics among them."""
    for buffer in model.buffers():
        broadcast(buffer)


def _join_on_cpu(cfg: Config) -> None:
    env_cfg = cfg.get("env_cfg") or {}
    # before mmengine's init_dist, which would choose another way to start data workers
    set_multi_processing(**env_cfg.get("mp_cfg", {}), distributed=True)
    options = {**env_cfg.get("dist_cfg", {}), "backend": "gloo"}
    with mock.patch.object(torch.cuda, "set_device"):
        init_dist(cfg.launcher, **options)


@MODEL_WRAPPERS.register_module()
class DistributedOnCPU(MMDistributedDataParallel):
    """mmengine's wrapper for a model on the CPU, whose synchronised norms work there.

    Args:
        module: The model.
        device_ids: What mmengine passes; there is but one device.
        **kwargs: See ``DistributedDataParallel``.
    """

    def __init__(self, module: nn.Module, device_ids: Any = None, **kwargs: Any) -> None:
        for norm in module.modules():
            if type(norm) is nn.SyncBatchNorm:
                norm.__class__ = SyncBatchNormOnCPU
        super().__init__(module, **kwargs)


class SyncBatchNormOnCPU(_BatchNorm):
    """What torch's ``SyncBatchNorm`` becomes on the CPU: statistics of the batch of all processes.

    It is none itself, since ``DistributedDataParallel`` refuses those there.

    With ``n`` values of a channel in all processes, ``mean = sum(x) / n`` and
    ``var = sum((x - mean)^2) / n``, both differentiated through.
    """

    process_group: dist.ProcessGroup | None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[N, C, ...]``; ``N`` may differ from process to process, and be zero."""
        if not self.training or dist.get_world_size(self.process_group) == 1:
            return super().forward(x)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        values = x.float()
        count = torch.full_like(values[:1].sum(axes), x.numel() / x.size(1))
        total, n = self._sum(torch.stack([values.sum(axes), count]))
        mean = total / n.detach()
        centred = values - mean.view(shape)
        var = self._sum(centred.square().sum(axes)) / n.detach()
        self._learn(mean.detach(), var.detach(), n.detach())
        out = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"SyncBatchNormOnCPU: expected [N, C, ...], got {list(x.shape)}")

    def _sum(self, x: Tensor) -> Tensor:
        return all_reduce(x, group=self.process_group or dist.group.WORLD)

    @torch.no_grad()
    def _learn(self, mean: Tensor, var: Tensor, n: Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        unbiased = var * n / (n - 1).clamp(min=1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
