"""LIF as spikingjelly computes it: Triton or native CUDA on a GPU, plain torch elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import functional as sj_functional
from spikingjelly.activation_based import surrogate as sj_surrogate
from torch import Tensor


def supports(surrogate: object) -> bool:
    """Whether it is one of spikingjelly's surrogate functions, in spiking mode."""
    return isinstance(surrogate, sj_surrogate.SurrogateFunctionBase) and surrogate.spiking


def lif_multi_step(x_seq: Tensor, **parameters: Any) -> Tensor:
    """See :func:`mmspike.neurons.functional.lif_multi_step`: the same spikes and gradients.

    Args:
        x_seq: Input, ``[T, ...]``.
        **parameters: All those of the reference; the surrogate must be spikingjelly's.

    Returns:
        Spikes of 0 and 1, shaped and typed like ``x_seq``.
    """
    p = parameters
    dtype = torch.promote_types(x_seq.dtype, torch.float32)
    at_rest = x_seq.new_full(x_seq.shape[1:], p["v_reset"] or 0.0, dtype=dtype)
    s_seq, _, _ = sj_functional.lif_multi_step(
        x_seq,
        at_rest,
        p["tau"],
        p["decay_input"],
        p["v_threshold"],
        p["v_reset"],
        p["surrogate"],
        p["detach_reset"],
        False,
    )
    return s_seq
