"""What the fused room needs to know of modules, as types: nothing else about them is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

from torch import Tensor, nn

Normalise = Callable[[nn.Module, Tensor], Tensor]
"""A way to call a norm: ``(norm, y) -> norm(y)``."""


def call(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)``, the plain way to call a norm."""
    return module(x)


AreConstant = Callable[[], Tensor | None]
"""Whether some spikes are constant, a boolean of no axes; ``None`` if they surely are not."""


def unknown() -> None:
    """Says nothing of some spikes, where nobody asks."""


@runtime_checkable
class SpikingLayer(Protocol):
    """``norm(layer(neuron(x)))``, step by step; ``layer`` reads spikes."""

    @property
    def neuron(self) -> nn.Module:
        """Makes spikes of membrane potentials."""

    @property
    def layer(self) -> nn.Module:
        """The weights."""

    @property
    def norm(self) -> nn.Module:
        """Normalises what they give."""


class Link(NamedTuple):
    """A :class:`SpikingLayer` whose three parts belong to another module."""

    neuron: nn.Module
    layer: nn.Module
    norm: nn.Module


@runtime_checkable
class SplitLayer(Protocol):
    """Several layers that act as one linear map, of which only the first reads spikes.

    ``forward(x)`` is ``rest(first(x))``.
    """

    @property
    def first(self) -> nn.Module:
        """The layer that reads the spikes."""

    def rest(
        self, y: Tensor, normalise: Normalise = call, are_constant: AreConstant = unknown
    ) -> Tensor:
        """Run the others.

        Args:
            y: Output of the first, ``[N, C, H, W]``.
            normalise: How norms among them are called.
            are_constant: Tells whether the spikes that the first layer read are the same at every
                pixel of the batch.

        Returns:
            ``[N, C', H, W]``.
        """


_known_types: dict[tuple[type, type], bool] = {}


def is_split(layer: nn.Module) -> TypeGuard[SplitLayer]:
    """Whether a layer is a :class:`SplitLayer`."""
    return _is(layer, SplitLayer)


def is_spiking_layer(layer: object) -> TypeGuard[SpikingLayer]:
    """Whether something is a :class:`SpikingLayer`."""
    return _is(layer, SpikingLayer)


def _is(layer: object, protocol: type) -> bool:
    """Whether something has a protocol's parts; Python's own check is slow, so once a class."""
    known = _known_types.get((type(layer), protocol))
    if known is None:
        known = _known_types[type(layer), protocol] = isinstance(layer, protocol)
    return known


class SpikingAttention(Protocol):
    """Attention on spikes: project to q, k and v, mix them, project the result.

    Attributes:
        neuron: Reads the input; all projections read its spikes.
        num_heads: Heads that the channels are split into.
        scale: Factor of ``q (k^T v)``; ``None`` for an average, which runs plainly.
    """

    neuron: nn.Module
    num_heads: int
    scale: float | None

    def projections(self) -> Sequence[tuple[nn.Module, nn.Module, nn.Module]]:
        """Convolution, norm and neuron of q, k and v; of all three, side by side, if it is one."""

    def output(self) -> Link:
        """The layer that reads the mixture."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map three times ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""


class Engine(Protocol):
    """What runs chains of spiking layers fast on one kind of device; tensors in, tensors out.

    Attributes:
        name: What it is called.
        device: Type of that device; ``None`` for any.
    """

    name: str

    @property
    def device(self) -> str | None:
        """See above."""

    def why_not(self, x_seq: Tensor) -> str | None:
        """Why it does not take this input; ``None`` if it does."""

    def why_not_fused(self, layer: SpikingLayer, x_seq: Tensor) -> str | None:
        """Why a layer is not run fused on this input; ``None`` if it is."""

    def run(self, layers: Sequence[SpikingLayer], x_seq: Tensor) -> Tensor:
        """Run layers one after the other: ``[T, B, C, ...]`` to ``[T, B, C', ...]``."""

    def attend(self, attention: SpikingAttention, x_seq: Tensor) -> Tensor:
        """Run an attention: ``[T, B, C, H, W]`` to ``[T, B, C, H, W]``."""
