"""Weights of several layers folded into fewer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmspike.fused import AreConstant, Normalise, call, unknown
from mmspike.layers.conv_shape import ConvShape
from mmspike.layers.rep_conv import RepConv


def fold_norm(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """Fold a batch norm, in evaluation, into the layer before it.

    Args:
        layer: Convolution, transposed convolution or linear layer; changed in place.
        norm: Batch norm with running statistics.

    Returns:
        ``layer``, with a bias.
    """
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    if transposed and layer.groups > 1:
        raise NotImplementedError("fold_norm: transposed convolution with groups")
    layer.weight, layer.bias = fuse_conv_bn_weights(
        layer.weight,
        layer.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=transposed,
    )
    return layer


class FoldedRepConv(nn.Sequential):
    """One or more RepConvs of one input as 1x1, depthwise 3x3 with zero padding, 1x1 with bias.

    A RepConv pads with what its first norm makes of 0. Without that norm's bias, which is moved
    after the depthwise convolution, this is 0.

    Args:
        modules: RepConvs with norms of running statistics; they are not changed.
        norms: The norm after each.
    """

    def __init__(self, modules: Sequence[RepConv], norms: Sequence[nn.Module]) -> None:
        parts = [_fold_parts(m, norm) for m, norm in zip(modules, norms, strict=True)]
        first, depthwise, last, bias = (torch.cat(t) for t in zip(*parts, strict=True))
        wide, channels = first.shape[:2]
        like = modules[0].conv1.weight
        super().__init__(
            nn.Conv2d(channels, wide, 1, bias=False).to(like),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False).to(like),
            nn.Conv2d(wide, last.size(0), 1, groups=len(parts)).to(like),
        )
        with torch.no_grad():
            for conv, weight in zip(self, (first, depthwise, last), strict=True):
                conv.weight.copy_(weight)
            self[2].bias.copy_(bias)

    @property
    def first(self) -> nn.Module:
        """The 1x1 convolution that reads the spikes."""
        return self[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map spikes ``[N, C, H, W]`` to ``[N, C', H, W]``."""
        return self.rest(self.first(x))

    def rest(
        self, y: Tensor, normalise: Normalise = call, are_constant: AreConstant = unknown
    ) -> Tensor:
        """The depthwise and the last convolution: map ``[N, C, H, W]`` to ``[N, C', H, W]``."""
        return self[2](self[1](y))

    def as_convolution(self) -> ConvShape:
        """The one 3x3 convolution that it is, for counters."""
        wide, channels = self[2].weight.size(0), self[0].weight.size(1)
        return ConvShape((wide, channels, 3, 3), (1, 1), (1, 1))


def fold_rep_convs(modules: Sequence[RepConv], norms: Sequence[nn.Module]) -> nn.Conv2d:
    """The one 3x3 convolution with zero padding that RepConvs of one input equal, border included.

    Args:
        modules: RepConvs; they are not changed.
        norms: The norm after each.

    Returns:
        A convolution with bias, whose outputs are those of the modules, one after the other.
    """
    weights, biases = [], []
    for module, norm in zip(modules, norms, strict=True):
        first, depthwise, last, bias = _fold_parts(module, norm)
        flat = (last.flatten(1), depthwise.squeeze(1), first.flatten(1))
        weights.append(torch.einsum("om,mhw,mi->oihw", *flat))
        biases.append(bias)
    weight = torch.cat(weights)
    conv = nn.Conv2d(weight.size(1), weight.size(0), 3, padding=1).to(modules[0].conv1.weight)
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(torch.cat(biases))
    return conv.train(modules[0].training)


@torch.no_grad()
def _fold_parts(module: RepConv, norm: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the 1x1, depthwise and 1x1 convolutions, and the last bias, in float64."""
    scale1, shift1 = _affine(module.norm1)
    scale2, shift2 = _affine(module.norm2)
    scale3, shift3 = _affine(norm)
    first = module.conv1.weight.double() * scale1.view(-1, 1, 1, 1)
    depthwise = module.dwconv.weight.double()
    last = module.conv2.weight.double() * (scale2 * scale3).view(-1, 1, 1, 1)
    bias = last.flatten(1) @ (depthwise.sum((1, 2, 3)) * shift1) + shift2 * scale3 + shift3
    return first, depthwise, last, bias


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in evaluation, in float64; of ``nn.Identity``, 1 and 0."""
    if isinstance(norm, nn.Identity):
        return torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        weight = norm.weight.double()
        scale, shift = scale * weight, shift * weight + norm.bias.double()
    return scale, shift
