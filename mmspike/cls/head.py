"""The classification head of the published models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmspike.layers.arguments import are_counts, refuse_unless
from mmspike.layers.classify import (
    build_classifier_neuron,
    classifier_neuron_of,
    classify,
    join_scores,
)
from mmspike.layers.time import mean_over_time
from mmspike.registry import CLS_MODELS

Cfg = dict[str, Any]

_TOPK = "a whole number of at least 1, or several"
PUBLISHED_LOSS: Cfg = {"type": "mmpretrain.LabelSmoothLoss", "label_smooth_val": 0.1}
"""Cross entropy with smoothed labels, as the published models are trained."""


@CLS_MODELS.register_module()
class SpikeClsHead(ClsHead):
    """mmpretrain's head on spikes: average over the image, neuron, linear, average over time.

    Reads the last map. Since the linear layers are linear, they read spikes that are averaged over
    time. Their names, ``head`` and ``head_kd``, are those of the published checkpoints.

    Args:
        in_channels: Channels of the last map.
        num_classes: Classes.
        distillation: Whether there is a second linear layer, which learns from a teacher. In
            evaluation the logits of both are averaged.
        neuron_cfg: Config of the neuron; ``None`` means that of the model, or
            ``dict(type="mmspike.LIF")``. An integer neuron gives n here, and not n / D.
        loss: Config of the loss of labels; ``None`` means cross entropy, labels smoothed by 0.1.
        distill_loss: Config of the loss of the second layer, which also tells the shares of both;
            ``None`` means ``dict(type="mmspike.cls.HardDistillation")``, half each.
        topk: Accuracies to compute in training, if ``cal_acc`` is set.
        cal_acc: Whether to compute accuracies in training, of the first layer.
        init_cfg: OpenMMLab's initialisation; ``None`` means a truncated normal distribution of 0.02
            for weights and 0 for biases.

    Raises:
        ValueError: If there is a ``distill_loss`` without ``distillation``, or ``topk`` is no
            number.
    """

    takes_sequences = True
    neuron_of = staticmethod(classifier_neuron_of)

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        distillation: bool = False,
        neuron_cfg: Cfg | None = None,
        loss: Cfg | None = None,
        distill_loss: Cfg | None = None,
        topk: int | Sequence[int] = (1, 5),
        cal_acc: bool = False,
        init_cfg: Cfg | list[Cfg] | None = None,
    ) -> None:
        if distill_loss is not None and not distillation:
            raise ValueError("SpikeClsHead: distill_loss is given, but distillation is False")
        ks = (topk,) if isinstance(topk, int) else topk
        refuse_unless(are_counts(ks), "SpikeClsHead", "topk", _TOPK, topk)
        super().__init__(
            loss=dict(loss or PUBLISHED_LOSS),
            topk=tuple(k for k in ks if k <= num_classes),
            cal_acc=cal_acc,
            init_cfg=init_cfg or {"type": "TruncNormal", "layer": "Linear", "std": 0.02},
        )
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.distillation = distillation
        self.neuron = build_classifier_neuron(neuron_cfg)
        self.head = nn.Linear(in_channels, num_classes)
        if distillation:
            self.head_kd = nn.Linear(in_channels, num_classes)
            self.distill_loss = CLS_MODELS.build(
                dict(distill_loss or {"type": "mmspike.cls.HardDistillation"})
            )

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """The spikes that the linear layers read, averaged over image and time, ``[B, C]``."""
        return mean_over_time(self.neuron(_last(feats).mean((-2, -1))))

    def forward(self, feats: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Score the classes.

        Args:
            feats: Maps ``[T, B, C, H, W]``, of which the last is read.

        Returns:
            Logits ``[B, num_classes]``; with ``distillation``, in training, those of both layers.

        Raises:
            ValueError: If the last map has no time axis.
        """
        return join_scores(self._scores(feats), self.training)

    def _scores(self, feats: Sequence[Tensor]) -> list[Tensor]:
        layers = [self.head, *([self.head_kd] if self.distillation else [])]
        return classify(_last(feats), self.neuron, layers)

    def loss(
        self,
        feats: Sequence[Tensor],
        data_samples: list[DataSample],
        teacher_scores: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Compare with the labels, and with what a teacher says.

        Args:
            feats: Maps ``[T, B, C, H, W]``, of which the last is read.
            data_samples: Labels.
            teacher_scores: Logits ``[B, num_classes]`` of the teacher.
            **kwargs: Further arguments of the loss of labels.

        Returns:
            ``loss``; with ``distillation``, ``loss_cls`` and ``loss_distill``, each times its
            share.

        Raises:
            ValueError: If there are no logits of a teacher with ``distillation``, or without.
        """
        if (teacher_scores is not None) != self.distillation:
            raise ValueError(
                "SpikeClsHead: distillation=True learns from a teacher, and distillation=False "
                "from none: set model.teacher, or model.head.distillation"
            )
        scores = self._scores(feats)
        losses = self._get_loss(scores[0], data_samples, **kwargs)
        if teacher_scores is not None:
            share = self.distill_loss.alpha
            losses["loss_cls"] = (1 - share) * losses.pop("loss")  # "loss" is the sum in logs
            losses["loss_distill"] = share * self.distill_loss(scores[1], teacher_scores)
        return losses


def _last(feats: Sequence[Tensor]) -> Tensor:
    x = feats[-1]
    if x.dim() != 5:
        raise ValueError(
            f"SpikeClsHead reads sequences [T, B, C, H, W], got shape {tuple(x.shape)}; leave "
            "model.backbone.decode out"
        )
    return x
