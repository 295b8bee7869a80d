"""The only place that folds, unfolds, repeats and averages the time axis.

A spike sequence is ``[T, B, C, H, W]`` (or ``[T, N, C]`` after a linear layer), time first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def repeat_over_time(x: Tensor, time_steps: int) -> Tensor:
    """Show the same input at every step: ``[B, ...]`` to ``[T, B, ...]``, without a copy."""
    if _channels_are_last(x):  # so that the gradient, a sum, has them last, too
        x = x.movedim(1, -1)
        return x.unsqueeze(0).expand(time_steps, *x.shape).movedim(-1, 2)
    return x.unsqueeze(0).expand(time_steps, *x.shape)


def mean_over_time(x_seq: Tensor) -> Tensor:
    """Average over time: ``[T, B, ...]`` to ``[B, ...]``; for spikes, the firing rate."""
    if x_seq.size(0) == 1:
        return x_seq.squeeze(0)
    if _channels_are_last(x_seq[0]):  # a mean would put them first
        return x_seq.movedim(2, -1).mean(0).movedim(-1, 1)
    return x_seq.mean(0)


def ordinary_map(x_seq: Tensor) -> Tensor:
    """Average over time for layers that are not ours: ``[T, B, C, H, W]`` to ``[B, C, H, W]``.

    The result is contiguous: mmcv's RoIAlign reads memory without regard to strides, and gives
    wrong features, without a word, of maps whose channels are last or that are every second pixel
    of others. Convolutions of the hosts keep the format that they are given.
    """
    return mean_over_time(x_seq).contiguous()


def _channels_are_last(x: Tensor) -> bool:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return last and not x.is_contiguous()


def per_step(fn: Callable[[Tensor], Tensor], x_seq: Tensor) -> Tensor:
    """Apply ``fn``, which maps ``[N, ...]`` to ``[N, ...]``, to every step in one call.

    Args:
        fn: A function that treats the entries of its first axis alike, as convolutions,
            normalisation and interpolation do.
        x_seq: ``[T, B, ...]``; ``fn`` sees it as ``[T * B, ...]``.

    Returns:
        ``[T, B, ...]``.

    Raises:
        ValueError: If ``fn`` changes the length of the first axis.
    """
    time_steps, batch = x_seq.shape[:2]
    out = fn(fold_time(x_seq))
    if out.shape[0] != time_steps * batch:
        raise ValueError(
            f"per_step: fn must keep the first axis, of length {time_steps * batch}, "
            f"and gave shape {tuple(out.shape)}"
        )
    return unfold_time(out, time_steps)


def fold_time(x_seq: Tensor) -> Tensor:
    """Put the images of all steps one after the other: ``[T, B, ...]`` to ``[T * B, ...]``."""
    if x_seq.size(0) == 1:
        return x_seq.squeeze(0)  # of one image, flattening would spoil the strides, see below
    return x_seq.flatten(0, 1)


def unfold_time(x: Tensor, time_steps: int) -> Tensor:
    """Undo :func:`fold_time`: ``[T * B, ...]`` to ``[T, B, ...]``.

    torch tells channels-last memory by the strides, also those of axes of length 1, which
    ``unflatten`` chooses such that a single image looks like one with its channels first.
    """
    if time_steps == 1:
        return x.unsqueeze(0)
    if time_steps == x.size(0):
        return x.unsqueeze(0).transpose(0, 1)
    return x.unflatten(0, (time_steps, -1))


def swap_time_and_batch(x_seq: Tensor) -> Tensor:
    """``[T, B, ...]`` to ``[B, T, ...]`` and back, as a view; hosts want the batch first."""
    return x_seq.transpose(0, 1)


def time_to_channels(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Put the steps of a map beside one another: ``[B, T, C, H, W]`` to ``[B, T * C, H, W]``.

    The result is contiguous: mmcv's RoIAlign reads memory without regard to strides.

    Args:
        x: The map.
        dtype: Type of the result, its own by default; converted in the same pass.
    """
    x = x.flatten(1, 2).to(dtype or x.dtype, memory_format=torch.contiguous_format)
    return x.contiguous()  # .to() returns what is of the type as it is, if its strides are unusual


def channels_to_time(x: Tensor, time_steps: int) -> Tensor:
    """Undo :func:`time_to_channels`: ``[B, T * C, H, W]`` to ``[B, T, C, H, W]``."""
    return x.unflatten(1, (time_steps, -1))
