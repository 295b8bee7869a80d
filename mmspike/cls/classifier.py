"""A classifier of images that checks its parts when it is built, and learns from a teacher."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmspike.checkpoints import CheckpointError
from mmspike.checkpoints.init import init_weights
from mmspike.cls.head import SpikeClsHead
from mmspike.cls.teacher import Teacher
from mmspike.layers.checks import expect, expect_sequences_where_read
from mmspike.layers.init_log import InitLog
from mmspike.neurons import default_neuron
from mmspike.neurons.protocols import levels_of
from mmspike.registry import CLS_MODELS


def check_classifier(classifier: nn.Module) -> None:
    """Check that backbone and head agree on channels, the time axis and the kind of neuron.

    Args:
        classifier: A classifier of mmpretrain's.

    Raises:
        ValueError: At the first disagreement; it names both sides.
    """
    expect_sequences_where_read(classifier)
    head, channels = classifier.head, getattr(classifier.backbone, "out_channels", None)
    if not isinstance(head, SpikeClsHead):
        return
    if isinstance(channels, list) and getattr(classifier, "neck", None) is None:
        expect("head.in_channels", head.in_channels, "the backbone's last width", channels[-1])
    levels = set(_levels(classifier.backbone))
    own = levels_of(head.neuron)
    if levels and own not in levels:
        raise ValueError(
            f"the backbone's neurons have {sorted(levels)} levels, the head's neuron has {own}: "
            "set model.neuron_cfg, which all parts take, instead of model.backbone.neuron_cfg"
        )


def _levels(module: nn.Module) -> Iterator[int]:
    for part in module.modules():
        levels = levels_of(part)
        if levels is not None:
            yield levels


@CLS_MODELS.register_module()
class SpikeImageClassifier(InitLog, ImageClassifier):
    """mmpretrain's classifier whose parts are checked against one another when it is built.

    Args:
        *args: Those of ``mmpretrain.models.ImageClassifier``.
        neuron_cfg: Config of all neurons of parts whose own config names none.
        teacher: Config of a :class:`Teacher` that the head's second layer learns from
            (``head=dict(distillation=True)``); only training needs it.
        **kwargs: Those of ``mmpretrain.models.ImageClassifier``.

    Raises:
        TypeError: If ``teacher`` is no config.
        ValueError: If the parts do not fit one another, or there is a teacher of which the head
            does not learn.
    """

    teacher: Teacher | None

    def __init__(
        self,
        *args: Any,
        neuron_cfg: dict[str, Any] | None = None,
        teacher: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        with default_neuron(neuron_cfg):
            super().__init__(*args, **kwargs)
        check_classifier(self)
        self.teacher = None
        if teacher is not None:
            if not isinstance(teacher, dict) or "type" not in teacher:
                raise TypeError(
                    "model.teacher must be a config such as dict(type='mmspike.cls.Teacher', "
                    f"model='caformer_b36.sail_in22k_ft_in1k'), got {teacher!r}"
                )
            if not getattr(self.head, "distillation", False):
                raise ValueError(
                    "model.teacher is given, but the head does not learn from it: set "
                    "model.head.distillation=True"
                )
            self.teacher = CLS_MODELS.build(teacher)

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says, pretrained heads included, and load the teacher.

        Raises:
            CheckpointError: If a pretrained checkpoint, or the teacher's, does not fit, or the
                teacher has another number of classes.
        """
        init_weights(self, super().init_weights)
        if self.teacher is not None:
            self._expect_classes(self.teacher.num_classes)

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            inputs: Normalised images, ``[B, C, H, W]``.
            data_samples: Labels.

        Returns:
            Those of the head.

        Raises:
            CheckpointError: If the teacher has another number of classes.
        """
        if self.teacher is None:
            return super().loss(inputs, data_samples)
        scores = self.teacher(self._pixels(inputs))
        self._expect_classes(scores.size(1))
        return self.head.loss(self.extract_feat(inputs), data_samples, teacher_scores=scores)

    def _pixels(self, inputs: Tensor) -> Tensor:
        """Values of pixels, red first, from images that the data preprocessor has normalised."""
        preprocessor = self.data_preprocessor
        if isinstance(getattr(preprocessor, "mean", None), Tensor):
            inputs = inputs * preprocessor.std + preprocessor.mean
        return inputs if getattr(preprocessor, "to_rgb", True) else inputs.flip(1)

    def _expect_classes(self, given: int | None) -> None:
        if given not in (None, self.head.num_classes):
            raise CheckpointError(
                f"model.teacher has {given} classes, but model.head.num_classes is "
                f"{self.head.num_classes}"
            )
