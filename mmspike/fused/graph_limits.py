"""What cannot be recorded in a CUDA graph, in words; and what a recording depends on."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import cache

import torch
from mmcv.cnn.bricks.drop import DropPath
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from mmspike.fused.memory import others_save
from mmspike.fused.switch import is_enabled
from mmspike.fused.watch import is_watched

DEVICES = ("cuda",)
"""Types of devices whose work can be recorded."""


def why_plain(modules: Iterable[tuple[str, nn.Module]], image: Tensor) -> str | None:
    """Why a call runs plainly, or ``None`` if it can be recorded and replayed.

    Args:
        modules: All modules that the call runs, with their names.
        image: What they read.
    """
    if image.device.type not in DEVICES:
        return f"the images are on the {image.device.type.upper()}"
    if torch.is_anomaly_enabled():
        return "anomaly detection is on"
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return "a mode looks at every operation"
    grad = torch.is_grad_enabled()
    if grad and image.requires_grad:
        return "the images take a gradient"
    if grad and others_save():
        return "hooks decide what is kept for the backward pass"
    for name, module in modules:
        reason = _why_not_module(module, grad)
        if reason is not None:
            return f"{name} {reason}"
    return None


def _why_not_module(module: nn.Module, grad: bool) -> str | None:
    if is_watched(module):
        return "has hooks"
    if module._compiled_call_impl is not None:
        return "is compiled"
    if not module.training:
        return None
    chance, synchronised = _traits_of(type(module))  # type: ignore[arg-type]
    if chance and getattr(module, chance):
        return "draws random numbers"
    own = vars(module)
    if grad and (own.get("with_cp") or own.get("stages_with_cp")):
        return "is checkpointed (with_cp)"
    if synchronised and _is_distributed():
        return "is a SyncBN, which waits for other processes"
    return None


@cache
def _traits_of(kind: type) -> tuple[str | None, bool]:
    """The attribute with the chance at which modules of a class drop, and if they synchronise."""
    chances = {DropPath: "drop_prob", _DropoutNd: "p"}
    found = [name for known, name in chances.items() if issubclass(kind, known)]
    return next(iter(found), None), issubclass(kind, nn.SyncBatchNorm)


def _is_distributed() -> bool:
    dist = torch.distributed
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def kind_of(modules: Iterable[tuple[str, nn.Module]], image: Tensor) -> Hashable:
    """What recordings are told apart by: sizes, types and modes."""
    device = image.device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast, is_enabled())
    state = tuple(
        (m.training, *(p.requires_grad for p in m._parameters.values() if p is not None))
        for _, m in modules
    )
    return (tuple(image.shape), image.stride(), image.dtype, image.device, modes, state)


def places_of(modules: Iterable[tuple[str, nn.Module]]) -> tuple[int, ...]:
    """Where parameters and buffers lie in memory."""
    return tuple(
        t.data_ptr()
        for _, m in modules
        for t in (*m._parameters.values(), *m._buffers.values())
        if t is not None
    )


def versions_of(modules: Iterable[tuple[str, nn.Module]]) -> tuple[int, ...]:
    """How often parameters have been written, as far as torch sees it."""
    return tuple(
        0 if p.is_inference() else p._version
        for _, m in modules
        for p in m._parameters.values()
        if p is not None
    )
