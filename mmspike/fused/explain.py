"""Tells, layer by layer, what runs fused, and why the rest does not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mmspike.fused.door import reasons_noted


@dataclass
class Explanation:
    """What ran fused.

    Attributes:
        layers: By the name of every spiking layer that ran, in the order of the model, why it did
            not run fused; ``None`` if it did.
    """

    layers: dict[str, str | None] = field(default_factory=dict)

    @property
    def fused(self) -> list[str]:
        """Names of the layers that ran fused."""
        return [name for name, reason in self.layers.items() if reason is None]

    @property
    def plain(self) -> dict[str, str]:
        """The others, and why."""
        return {name: reason for name, reason in self.layers.items() if reason is not None}

    def __str__(self) -> str:
        """One line: how many, and why not the others."""
        line = f"fused: {len(self.fused)} of {len(self.layers)} layers"
        counts: dict[str, int] = defaultdict(int)
        for reason in self.plain.values():
            counts[reason] += 1
        whys = [f"{count} plain: {reason}" for reason, count in counts.items()]
        return "; ".join([line, *whys])

    def table(self) -> str:
        """A line for every layer."""
        width = max(map(len, self.layers), default=0)
        rows = (f"{name:<{width}}  {why or 'fused'}" for name, why in self.layers.items())
        return "\n".join([*rows, str(self)])


@contextmanager
def explained(model: nn.Module) -> Iterator[Explanation]:
    """Explain what of a model runs inside, in this thread.

    Args:
        model: Any model with our layers in it.

    Yields:
        An explanation, which is filled when the context ends.
    """
    explanation = Explanation()
    with reasons_noted() as reasons:
        yield explanation
    for name, module in model.named_modules():
        if module in reasons:
            owner, _, attribute = name.rpartition(".")
            explanation.layers[owner if attribute == "layer" else name] = reasons[module]


def explain(
    model: nn.Module, inputs: Any, run: Callable[[nn.Module, Any], object] | None = None
) -> Explanation:
    """Run a model once, and tell what of it ran fused and why the rest did not.

    Gradients, mode and autocast are the caller's: what is fused depends on them.

    Args:
        model: Any model with our layers in it.
        inputs: What it is called with.
        run: How to call it; ``None`` means ``model(inputs)``. A detector or segmentor takes
            ``lambda model, batch: model.test_step(batch)``.

    Returns:
        What ran fused, layer by layer.

    Examples:
        >>> import torch
        >>> from mmspike.backbones import MetaSpikeFormer
        >>> model = MetaSpikeFormer(arch=dict(embed_dims=[8, 8, 16, 16], num_heads=2)).eval()
        >>> report = explain(model, torch.rand(1, 3, 32, 32))
        >>> report.plain["stages.0.downsample"]
        'there is no neuron before it'
    """
    with explained(model) as explanation:
        if run is None:
            model(inputs)
        else:
            run(model, inputs)
    return explanation
