"""Backbones with their classification heads, to check what a checkpoint knows.

They need no mmpretrain. :class:`mmspike.cls.SpikeImageClassifier` is what is trained.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmspike.backbones.e_spikeformer import NEURON, ESpikeFormer
from mmspike.backbones.meta_spikeformer import MetaSpikeFormer
from mmspike.backbones.spikeformer import SpikeFormer
from mmspike.checkpoints.init import init_weights
from mmspike.layers.classify import build_classifier_neuron, classify, join_scores
from mmspike.layers.init_log import InitLog
from mmspike.neurons.arguments import check_flag
from mmspike.registry import MODELS


@MODELS.register_module()
class MetaSpikeFormerClassifier(InitLog):
    """The published classifier: average over the image, neuron, linear, average over time.

    Args:
        num_classes: Classes.
        distilled: Whether there is a second head that learnt from a teacher; in evaluation the two
            are averaged.
        init_cfg: OpenMMLab's initialisation.
        **backbone: Arguments of :class:`MetaSpikeFormer`, except ``out_indices`` and ``decode``.

    Examples:
        >>> import torch
        >>> arch = dict(embed_dims=[16, 16, 24, 32], num_heads=4)
        >>> model = MetaSpikeFormerClassifier(num_classes=10, arch=arch).eval()
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    backbone_class: type[SpikeFormer] = MetaSpikeFormer
    _neuron: dict[str, Any] | None = None  # where the backbone's arguments name none

    def __init__(
        self,
        num_classes: int = 1000,
        distilled: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **backbone: Any,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_flag(f"{type(self).__name__}: distilled", distilled)
        self.backbone = self.backbone_class(out_indices=(4,), **backbone)
        width = self.backbone.out_channels[0]
        self.neuron = build_classifier_neuron(backbone.get("neuron_cfg") or self._neuron)
        self.head = nn.Linear(width, num_classes)
        self.head_kd = nn.Linear(width, num_classes) if distilled else None

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says, pretrained heads included; see the backbone's."""
        init_weights(self, super().init_weights)

    def forward(self, img: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Classify.

        Args:
            img: Normalised images, ``[B, C, H, W]``.

        Returns:
            Logits ``[B, num_classes]``; a distilled model in training gives those of both heads.
        """
        (x,) = self.backbone(img)
        heads = [head for head in (self.head, self.head_kd) if head is not None]
        return join_scores(classify(x, self.neuron, heads), self.training)


@MODELS.register_module()
class ESpikeFormerClassifier(MetaSpikeFormerClassifier):
    """The published classifier of E-SpikeFormer, whose last neuron gives integers, not n / D.

    Args:
        num_classes: Classes.
        distilled: As in :class:`MetaSpikeFormerClassifier`; no published model is.
        init_cfg: OpenMMLab's initialisation.
        **backbone: Arguments of :class:`ESpikeFormer`, except ``out_indices`` and ``decode``.
    """

    backbone_class = ESpikeFormer
    _neuron = NEURON


CLASSIFIERS = {
    "Meta-SpikeFormer": MetaSpikeFormerClassifier,
    "E-SpikeFormer": ESpikeFormerClassifier,
}
"""By the published family, see :data:`mmspike.checkpoints.upstream.FAMILIES`."""
