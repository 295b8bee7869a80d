"""A function of images recorded as CUDA graphs, forward and backward, and replayed under autograd.

``torch.cuda.make_graphed_callables`` does nearly that. Three things differ here. Other threads may
call CUDA meanwhile (a data loader's pinning of memory, NCCL's watchdog), which there ends the
capture. Gradients are given away as copies: autograd makes the first that it is given the
parameter's own ``.grad``, which the next replay would overwrite before it is added up. And a
backward pass whose activations another replay has overwritten is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Run = Callable[[Tensor], Sequence[Tensor]]
"""What is recorded: images to maps; what it reads beside must stay where it is in memory."""


_FAILED: list[Any] = []
"""Graphs whose capture ended in an error: torch's allocators may still ask whether they capture."""


@dataclass
class Recording:
    """Static memory that replays read and write.

    Attributes:
        image: What a replay reads.
        outputs: What it writes.
        parameters: Those that take a gradient.
        grad_outputs: What a backward replay reads; ``None`` for outputs without gradient.
        grads: What it writes, one per parameter.
        forward: Replays the forward pass.
        backward: Replays the backward pass; ``None`` without gradients.
    """

    image: Tensor
    outputs: tuple[Tensor, ...]
    parameters: tuple[nn.Parameter, ...]
    grad_outputs: tuple[Tensor | None, ...]
    grads: tuple[Tensor, ...]
    forward: Callable[[], None]
    backward: Callable[[], None] | None


class Memory:
    """Memory that recordings share: what one keeps for its backward pass, the next overwrites."""

    def __init__(self) -> None:
        self.pool: Any = None
        self.last_use = 0

    def use(self) -> int:
        """Count a replay; returns its number."""
        self.last_use += 1
        return self.last_use


def record(
    run: Run, image: Tensor, parameters: Sequence[nn.Parameter], memory: Memory
) -> Recording:
    """Record ``run(image)``, and its backward pass where gradients are on.

    Nothing is computed; whatever compiles or allocates at its first call must have been called.

    Args:
        run: Reads ``image`` and the parameters.
        image: Images, ``[B, C, H, W]``, without gradient.
        parameters: Those of which some may be read.
        memory: Shared with other recordings that are not in use at the same time.

    Raises:
        RuntimeError: If something in it cannot be recorded, such as waiting for the GPU.
    """
    static = image.detach().clone()  # keeps the strides
    if memory.pool is None:
        memory.pool = torch.cuda.graph_pool_handle()
    forward, backward = torch.cuda.CUDAGraph(), None
    read: tuple[nn.Parameter, ...] = ()
    grads: tuple[Tensor, ...] = ()
    with _capture(forward, memory, static.device):
        outputs = tuple(run(static))
    grad_outputs = tuple(torch.empty_like(y) if y.requires_grad else None for y in outputs)
    wanted = [y for y in outputs if y.requires_grad]
    if wanted:
        backward = torch.cuda.CUDAGraph()
        with _capture(backward, memory, static.device):
            found = gradients(wanted, parameters, [g for g in grad_outputs if g is not None])
        read, grads = zip(*found, strict=True)
    outputs = tuple(y.detach() for y in outputs)
    replay_backward = backward.replay if backward else None
    return Recording(static, outputs, read, grad_outputs, grads, forward.replay, replay_backward)


def gradients(
    outputs: Sequence[Tensor], parameters: Sequence[nn.Parameter], grad_outputs: Sequence[Tensor]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Parameters that the outputs depend on, each with its gradient; autocast is off for it."""
    with torch.autocast(outputs[0].device.type, enabled=False):
        grads = torch.autograd.grad(outputs, parameters, grad_outputs, allow_unused=True)
    return [(p, g) for p, g in zip(parameters, grads, strict=True) if g is not None]


@contextmanager
def _capture(graph: torch.cuda.CUDAGraph, memory: Memory, device: torch.device) -> Iterator[None]:
    try:
        with (
            torch.cuda.stream(torch.cuda.current_stream()),  # set again after an error
            torch.cuda.graph(graph, pool=memory.pool, capture_error_mode="thread_local"),
        ):
            yield
    except RuntimeError:
        _recover(graph, memory, device)
        raise


def _recover(graph: torch.cuda.CUDAGraph, memory: Memory, device: torch.device) -> None:
    """Set right what a capture leaves behind that ended in an error.

    The allocator still keeps the pool for it, and the device's random generator still counts for
    it: the next capture in that pool, random numbers and replays of other graphs would fail, the
    last two until a capture ends well.
    """
    _FAILED.append(graph)
    with suppress(RuntimeError):  # versions of torch that have done so
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), memory.pool)
    memory.pool = None  # the allocator of pinned memory has no such call
    number = torch.zeros((), device=device)
    with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
        number.zero_()


def replay(recording: Recording, image: Tensor, memory: Memory) -> tuple[Tensor, ...]:
    """Compute what was recorded for other images.

    Returns:
        The maps: with gradients in static memory, valid until the next replay, else copies.

    Raises:
        RuntimeError: In the backward pass, if another replay came between.
    """
    if recording.backward is not None:
        return _Replay.apply(recording, memory, image, *recording.parameters)
    memory.use()
    recording.image.copy_(image)
    recording.forward()
    return tuple(y.clone() for y in recording.outputs)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, recording: Recording, memory: Memory, image: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.recording, ctx.memory, ctx.use = recording, memory, memory.use()
        recording.image.copy_(image)
        recording.forward()
        outputs = tuple(y.detach() for y in recording.outputs)
        pairs = zip(outputs, recording.grad_outputs, strict=True)
        ctx.mark_non_differentiable(*(y for y, g in pairs if g is None))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        if ctx.use != ctx.memory.last_use:
            raise RuntimeError(
                "CUDA graphs: another forward or backward pass of the model came between this "
                "forward pass and its backward pass, and overwrote what was kept; train without "
                "mmspike.CudaGraphHook, or call backward() after each forward pass"
            )
        ctx.memory.use()  # the backward pass overwrites it, too
        for static, grad in zip(ctx.recording.grad_outputs, grads, strict=True):
            if static is not None:
                static.copy_(grad)
        ctx.recording.backward()
        return None, None, None, *torch._foreach_mul(ctx.recording.grads, 1)
