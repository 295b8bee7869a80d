"""Spiking parts for mmdet: thin subclasses; the only place that imports mmdet."""

from mmspike.installed import require_operators

require_operators("mmspike.det")  # before mmdet asks for them without a word

from mmspike.det.assigners import WholeMaxIoUAssigner
from mmspike.det.bbox_heads import SpikeConvFCBBoxHead, SpikeShared2FCBBoxHead
from mmspike.det.detectors import (
    SpikeCascadeRCNN,
    SpikeFasterRCNN,
    SpikeMaskRCNN,
    SpikeRetinaNet,
)
from mmspike.det.mask_heads import SpikeFCNMaskHead
from mmspike.det.retina_head import SpikeRetinaHead
from mmspike.det.roi_extractors import SpikeSingleRoIExtractor
from mmspike.det.roi_heads import SpikeCascadeRoIHead, SpikeStandardRoIHead
from mmspike.det.rpn_head import SpikeRPNHead
from mmspike.det.visualizers import ReadableVisualizer

__all__ = [
    "ReadableVisualizer",
    "SpikeCascadeRCNN",
    "SpikeCascadeRoIHead",
    "SpikeConvFCBBoxHead",
    "SpikeFCNMaskHead",
    "SpikeFasterRCNN",
    "SpikeMaskRCNN",
    "SpikeRPNHead",
    "SpikeRetinaHead",
    "SpikeRetinaNet",
    "SpikeShared2FCBBoxHead",
    "SpikeSingleRoIExtractor",
    "SpikeStandardRoIHead",
    "WholeMaxIoUAssigner",
]
