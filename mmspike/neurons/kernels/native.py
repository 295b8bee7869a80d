"""LIF in C++ for the CPU: all steps in one pass over memory, in vectors, on torch's threads.

The backward pass computes the potentials again from the input, which is all that is kept.
"""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based import surrogate as sj_surrogate
from torch import Tensor

from mmspike.native import lif
from mmspike.native.library import LIFStruct, is_available
from mmspike.native.norm import Norm
from mmspike.neurons.kernels.common import LIFFunction, LIFParameters

SURROGATES: dict[type, int] = {sj_surrogate.Sigmoid: 0, sj_surrogate.ATan: 1}
"""Surrogates that the backward pass knows, with the numbers that the kernels know them by."""


def supports(surrogate: Any) -> bool:
    """Whether the kernels are compiled and know this surrogate function."""
    return is_available() and type(surrogate) in SURROGATES and surrogate.spiking


def lif_multi_step(x_seq: Tensor, **parameters: Any) -> Tensor:
    """See :func:`mmspike.neurons.functional.lif_multi_step`: the same spikes and gradients.

    Args:
        x_seq: Input on the CPU, ``[T, ...]``.
        **parameters: All those of the reference; ``supports(surrogate)`` must hold.

    Returns:
        Spikes of 0 and 1, shaped and typed like ``x_seq``, each step laid out in memory as its.

    Raises:
        RuntimeError: If the kernels were not compiled.
    """
    return LIFFunction.apply(x_seq, LIFParameters(**parameters), forward, backward)


def forward(x: Tensor, s: Tensor, p: LIFParameters) -> None:
    """Write the spikes of ``x`` into ``s``; both ``[T, N]``."""
    lif.forward(x, s, struct_of(p))


def backward(
    x: Tensor,
    grad_s: Tensor,
    grad_x: Tensor,
    p: LIFParameters,
    norm: Norm | None = None,
    sums: Tensor | None = None,
) -> None:
    """Write the gradient of ``x`` into ``grad_x``; all ``[T, N]``.

    Args:
        x: Input.
        grad_s: Gradient of the spikes.
        grad_x: Where to.
        p: The neuron's parameters.
        norm: What was applied to ``x`` first; the gradient is that of its output then.
        sums: As in :func:`mmspike.native.lif.backward`.
    """
    lif.backward(x, grad_s, grad_x, struct_of(p), norm, sums)


def struct_of(p: LIFParameters) -> LIFStruct:
    """The parameters as the kernels take them."""
    return LIFStruct(
        tau=p.tau,
        threshold=p.v_threshold,
        rest=p.v_reset or 0.0,
        alpha=p.surrogate._sg_params.get("alpha", 0.0),
        soft_reset=p.v_reset is None,
        decay_input=p.decay_input,
        detach_reset=p.detach_reset,
        surrogate=SURROGATES.get(type(p.surrogate), -1),
    )
