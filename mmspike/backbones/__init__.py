"""Spiking backbones."""

from mmspike.backbones.classifier import MetaSpikeFormerClassifier
from mmspike.backbones.meta_spikeformer import MetaSpikeFormer

__all__ = ["MetaSpikeFormer", "MetaSpikeFormerClassifier"]
