"""Several convolutions that are one linear map: separable ones, and RepConv.

Each is a :class:`mmspike.fused.SplitLayer`: its first layer reads spikes, the rest real values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike.fused import AreConstant, Normalise, call, unknown
from mmspike.layers.constant import is_constant
from mmspike.layers.conv import build_norm
from mmspike.layers.conv_shape import ConvShape


class DepthwisePointwise(nn.Sequential):
    """Depthwise convolution, padded by half its kernel, and 1x1 convolution; no biases.

    Args:
        in_channels: Channels of the depthwise convolution.
        out_channels: Output channels.
        kernel_size: Of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        pad = kernel_size // 2
        super().__init__(
            nn.Conv2d(
                in_channels, in_channels, kernel_size, padding=pad, groups=in_channels, bias=False
            ),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )

    @property
    def first(self) -> nn.Module:
        """The depthwise convolution."""
        return self[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map spikes ``[N, C, H, W]`` to ``[N, C', H, W]``."""
        return self.rest(self.first(x))

    def rest(
        self, y: Tensor, normalise: Normalise = call, are_constant: AreConstant = unknown
    ) -> Tensor:
        """The 1x1 convolution: map ``[N, C, H, W]`` to ``[N, C', H, W]``."""
        return self[1](y)


class RepConv(nn.Module):
    """Three convolutions that are one linear map: 1x1, depthwise 3x3, 1x1, each norm folded in.

    The border of the depthwise convolution is padded with what the first norm gives for an input of
    0, read from its running statistics (without gradient, and in training after this batch has
    updated them). With that padding, the map equals a single 3x3 convolution with zero padding,
    exactly, at the border too.

    In training, where the spikes are the same at every pixel of a batch (none, where the attention
    is silent), the first norm passes no gradient back, where the published one passes that of
    rounding errors. What the 1x1 convolution makes of such spikes is constant, and a norm divides
    it by the root of its epsilon: gradients are multiplied by 316, and with the two norms after it,
    which see constant maps too, by 316 to the third power in every block. It is the spikes that are
    compared, whole numbers: variances of their sums are rounding errors.

    Source: "Spike-driven Transformer V2" (arXiv 2404.03663), section 3.2.

    Args:
        channels: Input and output channels.
        norm_cfg: Config of the norms, which must keep running statistics.

    Raises:
        TypeError: If the norm keeps no running statistics.
    """

    def __init__(self, channels: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm1 = build_norm(norm_cfg, channels)
        if not isinstance(self.norm1, _BatchNorm) or self.norm1.running_mean is None:
            raise TypeError(
                f"RepConv needs a batch norm with running statistics, got norm_cfg={norm_cfg!r}"
            )
        self.dwconv = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = build_norm(norm_cfg, channels)

    @property
    def first(self) -> nn.Module:
        """The 1x1 convolution that reads the spikes."""
        return self.conv1

    def forward(self, x: Tensor) -> Tensor:
        """Map spikes ``[N, C, H, W]`` to ``[N, C, H, W]``."""
        return self.rest(self.first(x), are_constant=lambda: is_constant(x))

    def rest(
        self, y: Tensor, normalise: Normalise = call, are_constant: AreConstant = unknown
    ) -> Tensor:
        """All but the first convolution: map ``[N, C, H, W]`` to ``[N, C, H, W]``."""
        y = normalise(self.norm1, y)
        constant = are_constant() if self.norm1.training else None
        if constant is not None:  # zeros where it holds, not None: all ranks wait for a gradient
            y = torch.where(constant, y.detach(), y)
        y = _Pad.apply(y, self.border_value().to(y.dtype))  # [N, C, H + 2, W + 2]
        y = self.conv2(self.dwconv(y))  # [N, C, H, W]
        return normalise(self.norm2, y)

    @torch.no_grad()
    def border_value(self) -> Tensor:
        """What the first norm makes of 0: ``beta - mean * gamma / sqrt(var + eps)``, ``[C]``."""
        norm = self.norm1
        value = -norm.running_mean * torch.rsqrt(norm.running_var + norm.eps)
        return value * norm.weight + norm.bias if norm.affine else value

    def as_convolution(self) -> ConvShape:
        """The one 3x3 convolution that it is."""
        return ConvShape((self.conv2.out_channels, self.conv1.in_channels, 3, 3), (1, 1), (1, 1))


class _Pad(torch.autograd.Function):
    """Surrounds ``[N, C, H, W]`` by one pixel of a border, ``[C]``, which takes no gradient.

    The gradient of a map written into another loses its layout in torch.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, border: Tensor) -> Tensor:
        n, c, h, w = x.shape
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        layout = torch.channels_last if last else torch.contiguous_format
        padded = torch.empty(
            (n, c, h + 2, w + 2), dtype=x.dtype, device=x.device, memory_format=layout
        )
        padded.copy_(border.view(1, -1, 1, 1))
        padded[:, :, 1:-1, 1:-1] = x
        return padded

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return grad[:, :, 1:-1, 1:-1], None
