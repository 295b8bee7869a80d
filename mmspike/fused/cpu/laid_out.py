"""Layers whose weights are laid out once for the CPU that they run on.

torch lays out a convolution's weights anew in every call, and computes small 1x1 convolutions by a
slower path. Here they go through oneDNN always, in channels-last memory, with weights in the layout
that it prefers, made in the first call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmspike.fused.cpu.read_only import ReadOnlyWeight, plain
from mmspike.fused.switch import is_enabled
from mmspike.layers.conv_shape import ConvShape
from mmspike.native.conv import lay_out_weight

_CHANNELS_LAST = torch.channels_last


def can_lay_out() -> bool:
    """Whether this torch has oneDNN and the operators that take weights laid out for it."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name)
        for name in ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")
    )


class _LaidOut(nn.Module):
    """Computes from layouts of its weight, which cannot be written to (:class:`ReadOnlyWeight`).

    Loading and moving replace the weight. One that something else has put in its place is computed
    with as it is.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.weight = ReadOnlyWeight(layer.weight.detach().clone())
        bias = layer.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def _usable(self, x: Tensor) -> bool:
        return (
            isinstance(self.weight, ReadOnlyWeight)
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and is_enabled()
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled("cpu")
            and x.numel() > 0
        )

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """Have an ordinary copy as weight, to write to; what it holds then is the weight."""
        self.weight = nn.Parameter(plain(self.weight).clone(), requires_grad=False)
        try:
            yield
        finally:
            self._freeze()

    def _freeze(self) -> None:
        self.weight = ReadOnlyWeight(plain(self.weight))

    def _apply(self, *args: Any, **kwargs: Any) -> _LaidOut:
        with self._writable():
            return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any) -> None:
        with self._writable():
            super()._load_from_state_dict(*args)
            self.weight = nn.Parameter(self.weight.clone(), False)  # not a tensor of the caller's

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._freeze()  # a file holds an ordinary weight


class LaidOutConv2d(_LaidOut):
    """A convolution on weights laid out once; input and output in channels-last memory.

    Args:
        conv: The convolution; zero padding given in numbers.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.stride, self.padding = list(conv.stride), list(conv.padding)
        self.dilation, self.groups = list(conv.dilation), conv.groups

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C', H', W']``."""
        x = x.contiguous(memory_format=_CHANNELS_LAST)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        if not self._usable(x):
            return F.conv2d(
                *(x, plain(self.weight), self.bias),
                *(self.stride, self.padding, self.dilation, self.groups),
            )
        weight = self.weight.layout(
            "onednn",
            lambda w: torch._C._nn.mkldnn_reorder_conv2d_weight(
                w.to_mkldnn(), *geometry, list(x.shape)
            ),
        )
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, self.bias, *geometry, "none", [], ""
        )

    def weight_rows(self, table: bool) -> Tensor:
        """The weights as the event-driven convolution takes them."""
        if not isinstance(self.weight, ReadOnlyWeight):
            return lay_out_weight(self.weight.detach(), table)
        return self.weight.layout(("rows", table), lambda w: lay_out_weight(w, table))

    def as_convolution(self) -> ConvShape:
        """The geometry, for counters."""
        return ConvShape(
            tuple(self.weight.shape), self.stride, self.padding, self.dilation, False, self.groups
        )

    def extra_repr(self) -> str:
        """Sizes, as torch prints them."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={tuple(self.weight.shape[2:])}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}"
        )


class LaidOutLinear(_LaidOut):
    """A linear layer on weights laid out once.

    Args:
        linear: The linear layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C]`` to ``[N, C']``."""
        if not self._usable(x):
            return F.linear(x, plain(self.weight), self.bias)
        weight = self.weight.layout(
            "onednn", lambda w: torch.ops.mkldnn._reorder_linear_weight(w, x.size(0))
        )
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, self.bias, "none", [], "")

    def as_convolution(self) -> ConvShape:
        """The geometry, for counters: a convolution over no pixels."""
        return ConvShape(tuple(self.weight.shape), (), ())

    def extra_repr(self) -> str:
        """Sizes, as torch prints them."""
        return f"{self.in_features}, {self.out_features}"


def lay_out(layer: nn.Module) -> nn.Module | None:
    """A layer that computes the same, in inference on a CPU, from weights laid out once for it.

    Args:
        layer: A convolution or linear layer.

    Returns:
        The layer to put in its place; ``None`` if there is none.
    """
    if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
        return LaidOutConv2d(layer)
    return LaidOutLinear(layer) if type(layer) is nn.Linear else None
