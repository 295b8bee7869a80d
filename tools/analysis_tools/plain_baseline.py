"""The plain implementation that benchmarks compare with."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

from mmspike.backbones import MetaSpikeFormer
from mmspike.backbones.blocks import Stage
from mmspike.neurons import LIF


class EagerLIF(LIFNode):
    """spikingjelly's multi-step LIF, set back to rest before every call."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """See spikingjelly."""
        self.reset()
        return super().forward(*args, **kwargs)


def make_eager(model: nn.Module) -> nn.Module:
    """Turn a model into its plain implementation, in place.

    Neurons are spikingjelly's own, the image is repeated T times before the backbone, and
    nothing is folded. It computes the same.

    Args:
        model: Model with our backbone or without.

    Returns:
        ``model``.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is LIF:
                setattr(module, name, _eager_neuron(child))
        if isinstance(module, MetaSpikeFormer):
            _repeat_image(module)
    return model


def _eager_neuron(neuron: LIF) -> EagerLIF:
    return EagerLIF(
        tau=neuron.tau,
        decay_input=neuron.decay_input,
        v_threshold=neuron.v_threshold,
        v_reset=neuron.v_reset,
        surrogate_function=neuron.surrogate_function,
        detach_reset=neuron.detach_reset,
        step_mode="m",
    )


def _repeat_image(backbone: MetaSpikeFormer) -> None:
    stem, steps = backbone.stages[0], backbone.time_steps

    def forward(img: Tensor, with_cp: bool = False) -> Tensor:
        return Stage.forward(stem, img.repeat(steps, 1, 1, 1, 1), with_cp)

    stem.forward = forward
