"""Spiking parts for mmdet: thin subclasses; the only place that imports mmdet."""

from mmspike.installed import require_operators

require_operators("mmspike.det")  # before mmdet asks for them without a word

from mmspike.det.assigners import WholeMaxIoUAssigner
from mmspike.det.bbox_heads import SpikeConvFCBBoxHead, SpikeShared2FCBBoxHead
from mmspike.det.detectors import SpikeFasterRCNN, SpikeMaskRCNN
from mmspike.det.mask_heads import SpikeFCNMaskHead
from mmspike.det.roi_extractors import SpikeSingleRoIExtractor
from mmspike.det.roi_heads import SpikeStandardRoIHead
from mmspike.det.rpn_head import SpikeRPNHead

__all__ = [
    "SpikeConvFCBBoxHead",
    "SpikeFCNMaskHead",
    "SpikeFasterRCNN",
    "SpikeMaskRCNN",
    "SpikeRPNHead",
    "SpikeShared2FCBBoxHead",
    "SpikeSingleRoIExtractor",
    "SpikeStandardRoIHead",
    "WholeMaxIoUAssigner",
]
