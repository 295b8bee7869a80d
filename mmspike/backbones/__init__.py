"""Spiking backbones."""

from mmspike.backbones.meta_spikeformer import MetaSpikeFormer

__all__ = ["MetaSpikeFormer"]
