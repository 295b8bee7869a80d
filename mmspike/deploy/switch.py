"""Switches a trained model to the form that runs fastest."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmspike import fused
from mmspike.deploy.attention import DeployedSelfAttention
from mmspike.deploy.folding import FoldedRepConv, fold_norm, fold_rep_convs
from mmspike.layers.attention import SpikeDrivenSelfAttention
from mmspike.layers.conv import SpikeLayer
from mmspike.layers.rep_conv import RepConv

REP_CONV_FORMS = ("cheapest", "conv3x3")


@dataclass
class DeployReport:
    """What :func:`switch_to_deploy` did.

    Attributes:
        folded: Layers whose norm was folded in.
        attentions: Attention modules whose q, k and v now come from one pass.
        laid_out: Layers with weights laid out for the CPU.
        norms_left: Names of batch norms that are still there, because no rule knows where to fold
            them.
    """

    folded: int = 0
    attentions: int = 0
    laid_out: int = 0
    norms_left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = (
            f"{self.folded} norms folded, q, k and v in one pass in {self.attentions} attention "
            f"modules, weights of {self.laid_out} layers laid out"
        )
        if self.norms_left:
            text += f"; norms left: {', '.join(self.norms_left)}"
        return text


def switch_to_deploy(
    model: nn.Module, rep_conv: str = "cheapest", lay_out: bool | None = None
) -> DeployReport:
    """Fold a trained model for inference, in place; its outputs stay the same, to rounding.

    Norms go into the weights before them; q, k and v are computed in one pass; RepConv loses
    its norms and its border. On a CPU, weights are laid out for it and maps lie in channels-last
    memory. What it does not know is left as it is. The model cannot be trained any more. Its state
    dict is no longer that of the config, and is marked: a model that was switched the same way
    loads it, any other refuses it, as this one refuses weights that are not folded (see
    :mod:`mmspike.layers.forms`).

    Args:
        model: A detector, a segmentor, a classifier or a backbone, any model with our layers in it.
        rep_conv: ``"cheapest"`` computes a RepConv as 1x1, depthwise 3x3 and 1x1 convolutions,
            the fewest operations; ``"conv3x3"`` as the single convolution that neuromorphic
            hardware wants.
        lay_out: Whether to lay out weights for the CPU; ``None`` does where the model is on one and
            torch can.

    Returns:
        What was done.

    Raises:
        ValueError: If ``rep_conv`` is neither, or ``lay_out`` is set and torch has no oneDNN.
    """
    if rep_conv not in REP_CONV_FORMS:
        raise ValueError(
            f"switch_to_deploy: rep_conv must be one of {REP_CONV_FORMS}, got {rep_conv!r}"
        )
    if lay_out and not fused.can_lay_out():
        raise ValueError("switch_to_deploy: lay_out=True, but this torch has no oneDNN")
    if lay_out is None:
        lay_out = fused.can_lay_out() and all(p.device.type == "cpu" for p in model.parameters())
    report = DeployReport()
    model.eval()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            is_plain = isinstance(child, SpikeDrivenSelfAttention)
            if is_plain and isinstance(child.proj_conv, RepConv):
                folded = _fold_attention(child, rep_conv)
                folded.mark(f"deployed with rep_conv={rep_conv!r}")
                setattr(parent, name, folded)
                report.attentions += isinstance(folded, DeployedSelfAttention)
                report.folded += 12
    for module in list(model.modules()):
        if isinstance(module, SpikeLayer) and _can_fold(module.norm):
            last = module.layer[-1] if isinstance(module.layer, nn.Sequential) else module.layer
            fold_norm(last, module.norm)
            module.norm = nn.Identity()
            module.mark("deployed")
            report.folded += 1
    if lay_out:
        report.laid_out = _lay_out(model)
    model.requires_grad_(False)
    report.norms_left = [n for n, m in model.named_modules() if isinstance(m, _BatchNorm)]
    return report


def _can_fold(norm: nn.Module) -> bool:
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def _fold_attention(trained: SpikeDrivenSelfAttention, rep_conv: str) -> nn.Module:
    """Fold the norms of an attention, and join q, k and v if one neuron can read all three."""
    build = FoldedRepConv if rep_conv == "cheapest" else fold_rep_convs
    convs, norms, neurons = zip(*trained.projections(), strict=True)
    trained.proj_conv = build([trained.proj_conv], [trained.proj_norm]).eval()
    trained.proj_norm = nn.Identity()
    if not any(neuron.state_dict() for neuron in neurons):
        return DeployedSelfAttention(trained, build(convs, norms).eval()).eval()
    for name, conv, norm in zip("qkv", convs, norms, strict=True):  # each neuron learnt its own
        setattr(trained, f"{name}_conv", build([conv], [norm]).eval())
        setattr(trained, f"{name}_norm", nn.Identity())
    return trained


def _lay_out(model: nn.Module) -> int:
    """Replace convolutions and linear layers that read spikes or are part of our layers."""
    count = 0
    ours = (SpikeLayer, FoldedRepConv, DeployedSelfAttention, SpikeDrivenSelfAttention)
    for parent in [m for m in model.modules() if isinstance(m, ours)]:
        for owner in [parent, *(c for c in parent.children() if isinstance(c, nn.Sequential))]:
            for name, child in list(owner.named_children()):
                layer = fused.lay_out(child)
                if layer is not None:
                    setattr(owner, name, layer)
                    count += 1
    return count
