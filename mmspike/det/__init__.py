"""Spiking parts for mmdet: thin subclasses; the only place that imports mmdet."""

from mmspike.det.assigners import WholeMaxIoUAssigner
from mmspike.det.bbox_heads import SpikeConvFCBBoxHead, SpikeShared2FCBBoxHead
from mmspike.det.detectors import SpikeFasterRCNN, SpikeMaskRCNN
from mmspike.det.mask_heads import SpikeFCNMaskHead
from mmspike.det.roi_extractors import SpikeSingleRoIExtractor
from mmspike.det.roi_heads import SpikeStandardRoIHead
from mmspike.det.rpn_head import SpikeRPNHead
from mmspike.det.visualizers import ReadableVisualizer

__all__ = [
    "ReadableVisualizer",
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
