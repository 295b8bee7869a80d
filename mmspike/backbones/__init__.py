"""Spiking backbones."""

from mmspike.backbones.classifier import (
    CLASSIFIERS,
    ESpikeFormerClassifier,
    MetaSpikeFormerClassifier,
)
from mmspike.backbones.e_spikeformer import ESpikeFormer
from mmspike.backbones.meta_spikeformer import MetaSpikeFormer

__all__ = [
    "CLASSIFIERS",
    "ESpikeFormer",
    "ESpikeFormerClassifier",
    "MetaSpikeFormer",
    "MetaSpikeFormerClassifier",
]
