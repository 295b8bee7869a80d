"""Spiking parts for mmpretrain: thin subclasses; the only place that imports mmpretrain."""

from mmspike.installed import require_mmpretrain

require_mmpretrain()  # before a host's import says less

from mmspike.cls.classifier import SpikeImageClassifier
from mmspike.cls.head import SpikeClsHead
from mmspike.cls.losses import HardDistillation, SoftDistillation
from mmspike.cls.teacher import Teacher

__all__ = [
    "HardDistillation",
    "SoftDistillation",
    "SpikeClsHead",
    "SpikeImageClassifier",
    "Teacher",
]
