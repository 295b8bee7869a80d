"""Assignment of anchors and RoIs to objects without waiting for the GPU object by object."""

from __future__ import annotations

import copy

import torch
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from torch import Tensor

from mmspike.registry import DET_TASK_UTILS


@DET_TASK_UTILS.register_module()
class WholeMaxIoUAssigner(MaxIoUAssigner):
    """mmdet's assigner, with all objects of an image in one operation; the results are the same.

    mmdet asks for every object, one after the other, whether its best overlap is large enough,
    and each time the processor waits for the GPU.
    """

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """See mmdet.

        Args:
            overlaps: Of objects with boxes, ``[objects, boxes]``.
            gt_labels: Classes of the objects.
        """
        host = copy.copy(self)  # other threads go on with theirs
        host.match_low_quality = False
        result = MaxIoUAssigner.assign_wrt_overlaps(host, overlaps, gt_labels)
        if self.match_low_quality and overlaps.numel():
            self._match_low_quality(overlaps, gt_labels, result)
        return result

    def _match_low_quality(self, overlaps: Tensor, labels: Tensor, result: AssignResult) -> None:
        """Give each object its best boxes; where two objects want one, the later gets it."""
        best, where = overlaps.max(dim=1, keepdim=True)  # [objects, 1]
        if self.gt_max_assign_all:
            wanted = overlaps == best
        else:
            wanted = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(1, where, True)
        wanted &= best >= self.min_pos_iou
        numbers = torch.arange(1, len(labels) + 1, device=overlaps.device)
        latest = (wanted * numbers[:, None]).amax(0)  # [boxes]; 0 where no object wants a box
        result.gt_inds = torch.where(latest > 0, latest, result.gt_inds)
        owner = (result.gt_inds - 1).clamp(min=0)
        result.labels = torch.where(result.gt_inds > 0, labels[owner], -1)
