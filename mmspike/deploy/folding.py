"""Weights of several layers folded into one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmspike.layers.conv import RepConv


def fold_norm(conv: nn.Module, norm: nn.Module, transposed: bool = False) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution or linear layer with its batch norm, in evaluation."""
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=transposed,
    )
    return weight.detach(), bias.detach()


@torch.no_grad()
def fold_rep_conv(module: RepConv) -> nn.Conv2d:
    """The one 3x3 convolution with zero padding that a RepConv equals, at the border too.

    Args:
        module: RepConv; it is not changed.

    Returns:
        A convolution with bias, on the module's device and in its type.
    """
    weight1, bias1 = fold_norm(module.conv1, module.norm1)  # [C, C, 1, 1], [C]
    weight2, bias2 = fold_norm(module.conv2, module.norm2)
    depthwise = module.dwconv.weight.double().squeeze(1)  # [C, 3, 3]
    before, after = weight1.double().flatten(1), weight2.double().flatten(1)
    conv = nn.Conv2d(before.size(1), after.size(0), 3, padding=1).to(module.conv1.weight)
    conv.weight.copy_(torch.einsum("om,mhw,mi->oihw", after, depthwise, before))
    # the border holds what the first norm makes of 0: its bias, as everywhere else
    conv.bias.copy_(after @ (depthwise.sum((1, 2)) * bias1.double()) + bias2.double())
    return conv.train(module.training)
