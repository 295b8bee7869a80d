"""Errors of a training that end it with a line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmspike.engine.finite_hook import NotFiniteError

ONE_VALUE_CURE = (
    "train on images or crops of more than 16 x 16 pixels, the stride of the backbone's last maps, "
    "with train_dataloader.batch_size of at least 2 and drop_last=True, or let no norm depend on "
    "the batch (model.backbone.norm_eval=True, and norm_cfg=dict(type='GN', num_groups=...) in "
    "neck and heads)"
)
"""What to do where a batch norm in training sees one value per channel."""


@contextmanager
def errors_in_words() -> Iterator[None]:
    """End with a line where it is known what an error of a training means.

    Raises:
        SystemExit: For numbers that are not finite, and for a batch norm, of this package or of a
            host's head, that sees one value per channel.
    """
    try:
        yield
    except NotFiniteError as error:
        raise SystemExit(str(error)) from error
    except ValueError as error:
        text = str(error)
        if "more than 1 value per channel" not in text:
            raise
        raise SystemExit(text if ONE_VALUE_CURE in text else f"{text}: {ONE_VALUE_CURE}") from error
