"""What a student learns from a teacher: its label, or its distribution."""

from __future__ import annotations

import math
from numbers import Real

import torch.nn.functional as F
from torch import Tensor, nn

from mmspike.layers.arguments import refuse_unless
from mmspike.registry import CLS_MODELS


class Distillation(nn.Module):
    """Mixin for the loss of a second head, which weighs it against that of the labels.

    A head adds up ``(1 - alpha) * loss(head, label) + alpha * loss(head_kd, teacher)``.

    Args:
        alpha: Share of the teacher, 0 to 1.

    Raises:
        ValueError: If it is not in this range.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__()
        ok = isinstance(alpha, Real) and 0 <= float(alpha) <= 1
        refuse_unless(ok, type(self).__name__, "alpha", "a number from 0 to 1", alpha)
        self.alpha = alpha


@CLS_MODELS.register_module()
class HardDistillation(Distillation):
    """Cross entropy with the class that the teacher finds likeliest.

    Source: "Training data-efficient image transformers & distillation through attention" (arXiv
    2012.12877), section 4; the published Meta-SpikeFormer is fine-tuned with ``alpha=0.5``.

    Args:
        alpha: Share of the teacher in the sum of both losses.

    Examples:
        >>> import torch
        >>> student, teacher = torch.zeros(2, 4), torch.eye(4)[:2]
        >>> round(HardDistillation()(student, teacher).item(), 4)  # log(4)
        1.3863
    """

    def forward(self, score: Tensor, teacher_score: Tensor) -> Tensor:
        """Compare logits ``[B, num_classes]`` of student and teacher; the mean over the batch."""
        return F.cross_entropy(score, teacher_score.argmax(1))


@CLS_MODELS.register_module()
class SoftDistillation(Distillation):
    """Kullback-Leibler divergence from the teacher's distribution, both softened.

    ``temperature ** 2 * KL(softmax(teacher / temperature) || softmax(student / temperature))``, the
    mean over the batch. The factor keeps gradients at their size when the temperature changes.

    Source: "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2.

    Args:
        alpha: Share of the teacher in the sum of both losses.
        temperature: What logits are divided by.

    Raises:
        ValueError: If the temperature is not positive.
    """

    def __init__(self, alpha: float = 0.5, temperature: float = 1.0) -> None:
        super().__init__(alpha)
        ok = isinstance(temperature, Real) and 0 < float(temperature) < math.inf
        refuse_unless(ok, "SoftDistillation", "temperature", "a number above 0", temperature)
        self.temperature = temperature

    def forward(self, score: Tensor, teacher_score: Tensor) -> Tensor:
        """Compare logits ``[B, num_classes]`` of student and teacher; the mean over the batch."""
        student, teacher = (
            F.log_softmax(x.float() / self.temperature, dim=1) for x in (score, teacher_score)
        )
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return divergence * self.temperature**2
