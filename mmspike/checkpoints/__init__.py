"""Reading weights that were trained elsewhere: rules, report, safe loading."""

from mmspike.checkpoints.hosts import read_safely_in_mmengine
from mmspike.checkpoints.loading import load_pretrained, load_whole
from mmspike.checkpoints.reading import (
    CheckpointError,
    CheckpointFile,
    read_checkpoint,
)
from mmspike.checkpoints.report import LoadReport

__all__ = [
    "CheckpointError",
    "CheckpointFile",
    "LoadReport",
    "load_pretrained",
    "load_whole",
    "read_checkpoint",
    "read_safely_in_mmengine",
]
