"""What a module says that is one convolution, however it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class ConvShape(NamedTuple):
    """What decides how many outputs an input of a convolution reaches."""

    weight: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int] = (1, 1)
    transposed: bool = False
    groups: int = 1


@runtime_checkable
class ActsAsConvolution(Protocol):
    """A module that is one convolution (or linear layer), by which counters count it."""

    def as_convolution(self) -> ConvShape:
        """The geometry of that convolution."""
