"""A trained classifier that another one learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmspike.cls.teacher_models import (
    File,
    Model,
    build_teacher,
    check_arguments,
    describe,
    is_named,
)
from mmspike.registry import CLS_MODELS


@CLS_MODELS.register_module()
class Teacher(nn.Module):
    """A classifier that gives logits and learns nothing.

    It is a part of the student that moves with it, and of which nobody else takes notice: its
    parameters are not the student's, so that they stand in no state dict, optimizer, average or
    reduction over processes. It is built and loaded when training begins; what tests or converts
    the student needs none of its files.

    Args:
        model: Which classifier: the name of a timm model (``"caformer_b36.sail_in22k_ft_in1k"``) or
            of one of mmpretrain's, a config file of mmpretrain's or ours, or a model's config.
        checkpoint: Its weights, as :func:`mmspike.checkpoints.load_whole` takes them. ``None``
            fetches those that are published under that name.
        mean: Mean of red, green and blue that the teacher was trained with, in 0 to 255; ``None``
            takes what the classifier itself tells.
        std: Standard deviation, likewise.
        num_classes: Classes of a timm model, where they are not those of its published weights.

    Raises:
        ValueError: If an argument is none of these, or ``model`` is no name, and there is no
            checkpoint.

    Examples:
        ``model = dict(teacher=dict(type="mmspike.cls.Teacher",
        model="caformer_b36.sail_in22k_ft_in1k"))`` in a config.
    """

    def __init__(
        self,
        model: Model,
        checkpoint: File | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_arguments(model, checkpoint, mean, std, num_classes)
        if checkpoint is None and not is_named(model):
            raise ValueError(
                f"model.teacher.checkpoint is missing: model={describe(model)} is no name, under "
                "which weights could be found"
            )
        self._given = (model, checkpoint, mean, std, num_classes)
        self._models: list[nn.Module] = []  # one, once it is built; torch looks into no lists

    def load(self) -> None:
        """Build the classifier and load its weights, if that was not done.

        Raises:
            CheckpointError: If the model or its checkpoint is not there, is another model's, or
                cannot be fetched.
        """
        if not self._models:
            model, checkpoint, _, _, num_classes = self._given
            teacher = build_teacher(model, checkpoint, num_classes)
            self._models.append(teacher.eval().requires_grad_(False))

    @property
    def num_classes(self) -> int | None:
        """How many classes the classifier tells apart, if it says so."""
        self.load()
        (model,) = self._models
        owners = (getattr(model, "head", None), model)
        return next(
            (n for m in owners if isinstance(n := getattr(m, "num_classes", None), int)), None
        )

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Score images.

        Args:
            pixels: Images ``[B, 3, H, W]``, red first, of values from 0 to 255.

        Returns:
            Logits ``[B, num_classes]``, without gradient.
        """
        self.load()
        (model,) = self._models
        if next(model.parameters()).device != pixels.device:
            model.to(pixels.device)
        mean, std, red_first = _input_of(model)
        images = pixels if red_first else pixels.flip(1)
        mean, std = (
            pixels.new_tensor((own if red_first else own[::-1]) if own else told).view(-1, 1, 1)
            for own, told in zip(self._given[2:4], (mean, std), strict=True)
        )
        images = (images - mean) / std
        return model(images, mode="tensor") if _is_of_mmpretrain(model) else model(images)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Teacher:
        """Move the classifier, too, which is no submodule."""
        super()._apply(fn, recurse)
        for model in self._models:
            model._apply(fn, recurse)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        """Share the classifier with copies of the student, such as averages of its weights."""
        other = Teacher(*self._given)
        other._models = self._models
        memo[id(self)] = other
        return other


def _is_of_mmpretrain(model: nn.Module) -> bool:
    return hasattr(model, "data_preprocessor")


def _input_of(model: nn.Module) -> tuple[Sequence[float], Sequence[float], bool]:
    """Mean and deviation of the images that a classifier reads, and whether red comes first."""
    if not _is_of_mmpretrain(model):  # timm's, which tells them for values from 0 to 1
        cfg = model.pretrained_cfg
        mean, std = ([255 * value for value in cfg[key]] for key in ("mean", "std"))
        return mean, std, True
    preprocessor = model.data_preprocessor
    red_first = getattr(preprocessor, "to_rgb", True)
    if not isinstance(getattr(preprocessor, "mean", None), Tensor):
        return [0.0], [1.0], red_first
    return preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist(), red_first
