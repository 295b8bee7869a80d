"""Reading weights that were trained elsewhere: rules, report, safe loading."""

from mmspike.checkpoints.loading import LoadReport, load_pretrained, load_whole
from mmspike.checkpoints.reading import (
    CheckpointError,
    CheckpointFile,
    read_checkpoint,
    read_safely_in_mmengine,
)

__all__ = [
    "CheckpointError",
    "CheckpointFile",
    "LoadReport",
    "load_pretrained",
    "load_whole",
    "read_checkpoint",
    "read_safely_in_mmengine",
]
