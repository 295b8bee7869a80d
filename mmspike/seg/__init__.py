"""Spiking parts for mmseg: thin subclasses; the only place that imports mmseg."""

from mmspike.seg.fpn_head import SpikeFPNHead
from mmspike.seg.metrics import PerClassIoUMetric
from mmspike.seg.segmentors import SpikeEncoderDecoder
from mmspike.seg.transforms import Stretch

__all__ = ["PerClassIoUMetric", "SpikeEncoderDecoder", "SpikeFPNHead", "Stretch"]
