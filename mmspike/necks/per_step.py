"""Ordinary necks on sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from mmspike.layers.time import fold_time, unfold_time
from mmspike.neurons.arguments import check_config
from mmspike.registry import MODELS


@MODELS.register_module()
class PerStepNeck(BaseModule):
    """An ordinary neck between a spiking backbone and spiking heads: every step is an image to it.

    It computes with real values, the membrane potentials of the backbone. Give it norms and no
    activation after them, so that the heads' neurons start firing:
    ``dict(type="FPN", norm_cfg=dict(type="BN"), act_cfg=None, ...)``.

    Args:
        neck: Config of the neck, of any host.
        init_cfg: OpenMMLab's initialisation; the neck has its own.
    """

    takes_sequences = gives_sequences = True

    def __init__(
        self,
        neck: dict[str, Any],
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_config("PerStepNeck: neck", neck, "FPN")
        self.neck = MODELS.build(neck)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the neck on every step.

        Args:
            inputs: The backbone's maps, ``[T, B, C, H, W]`` each.

        Returns:
            What the neck makes of them, ``[T, B, C', H', W']`` each.

        Raises:
            ValueError: If a map has other axes.
        """
        if any(x.dim() != 5 for x in inputs):
            raise ValueError(
                "PerStepNeck takes maps [T, B, C, H, W], got shapes "
                f"{[tuple(x.shape) for x in inputs]}"
            )
        levels = self.neck(tuple(map(fold_time, inputs)))
        return tuple(unfold_time(y, inputs[0].size(0)) for y in levels)
