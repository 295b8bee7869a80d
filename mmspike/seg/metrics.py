"""Metrics of segmentation beyond mmseg's averages."""

from __future__ import annotations

from mmseg.evaluation.metrics import IoUMetric
from torch import Tensor

from mmspike.registry import SEG_METRICS


@SEG_METRICS.register_module()
class PerClassIoUMetric(IoUMetric):
    """mmseg's IoU, which also returns the value of every class as ``IoU.<class>``, in percent.

    mmseg prints a table of the classes and returns their average alone. A class that occurs neither
    in the labels nor in the predictions has no IoU (NaN).
    """

    def compute_metrics(self, results: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> dict:
        """Sum up intersections, unions, predicted and labelled areas, ``[classes]`` per image."""
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        intersection, union, *_ = (sum(areas) for areas in zip(*results, strict=True))
        iou = (100 * intersection / union).tolist()
        names = self.dataset_meta["classes"]
        return metrics | {f"IoU.{name}": value for name, value in zip(names, iou, strict=True)}
