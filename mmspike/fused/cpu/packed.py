"""Layers whose weights are laid out once for the CPU that they run on.

torch lays out a convolution's weights anew in every call, and computes small 1x1 convolutions by a
slower path. Here they go through oneDNN always, in channels-last memory, with weights in the layout
that it prefers, made in the first call.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmspike.fused.switch import is_enabled
from mmspike.layers.conv_shape import ConvShape
from mmspike.native.conv import pack_weight

_CHANNELS_LAST = torch.channels_last


def can_lay_out() -> bool:
    """Whether this torch has oneDNN and the operators that take weights laid out for it."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name)
        for name in ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")
    )


class _Packed(nn.Module):
    """Keeps packed weights beside the plain ones, and knows when they can be used."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
        bias = layer.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self._packed: Tensor | None = None
        self._packed_rows: dict[bool, Tensor] = {}
        self._packed_from: tuple | None = None

    def _forget_if_changed(self) -> None:
        """Drop what was packed if the weights were written to since."""
        weight = self.weight
        state = (weight.data_ptr(), None if weight.is_inference() else weight._version)
        if state != self._packed_from:
            self._packed, self._packed_rows, self._packed_from = None, {}, state

    def _usable(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and is_enabled()
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled("cpu")
            and x.numel() > 0
        )

    def _apply(self, *args: object, **kwargs: object) -> _Packed:
        self._packed, self._packed_rows = None, {}  # the weights move or change their type
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        self._packed, self._packed_rows = None, {}
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_packed": None, "_packed_rows": {}}  # cannot be copied


class PackedConv2d(_Packed):
    """A convolution, as it was, on packed weights; input and output in channels-last memory.

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
                x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
            )
        self._forget_if_changed()
        if self._packed is None:
            self._packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
                self.weight.detach().to_mkldnn(), *geometry, list(x.shape)
            )
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, self.bias, *geometry, "none", [], ""
        )

    def packed_rows(self, table: bool) -> Tensor:
        """The weights as the event-driven convolution takes them."""
        self._forget_if_changed()
        if table not in self._packed_rows:
            self._packed_rows[table] = pack_weight(self.weight.detach(), table)
        return self._packed_rows[table]

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


class PackedLinear(_Packed):
    """A linear layer, as it was, on packed weights.

    Args:
        linear: The linear layer.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C]`` to ``[N, C']``."""
        if not self._usable(x):
            return F.linear(x, self.weight, self.bias)
        self._forget_if_changed()
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), x.size(0))
        return torch.ops.mkldnn._linear_pointwise(
            x.contiguous(), self._packed, self.bias, "none", [], ""
        )

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
        return PackedConv2d(layer)
    return PackedLinear(layer) if type(layer) is nn.Linear else None
