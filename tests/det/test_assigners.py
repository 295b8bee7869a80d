"""The assigner against mmdet's own."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from mmspike.det import WholeMaxIoUAssigner
from tests.det.helpers import read_config


def boxes(count, seed, step=8):
    """Boxes on a coarse grid, so that overlaps tie."""
    generator = torch.Generator().manual_seed(seed)
    corner = step * torch.randint(0, 8, (count, 2), generator=generator)
    return torch.cat(
        [corner, corner + step * torch.randint(1, 4, (count, 2), generator=generator)], 1
    )


class CountWaits(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("gt_max_assign_all", [True, False])
@pytest.mark.parametrize("match_low_quality", [True, False])
@pytest.mark.parametrize(("objects", "count"), [(0, 40), (1, 40), (25, 200), (25, 0)])
def test_assigns_as_mmdet(objects, count, match_low_quality, gt_max_assign_all):
    options = dict(
        pos_iou_thr=0.7,
        neg_iou_thr=0.3,
        min_pos_iou=0.3,
        match_low_quality=match_low_quality,
        gt_max_assign_all=gt_max_assign_all,
    )
    ours, mmdets = WholeMaxIoUAssigner(**options), MaxIoUAssigner(**options)
    seen = 0
    for seed in range(5):
        labels = torch.randint(0, 3, (objects,))
        truth = InstanceData(bboxes=boxes(objects, seed).float(), labels=labels)
        found = InstanceData(priors=boxes(count, seed + 100).float())
        a, b = ours.assign(found, truth), mmdets.assign(found, truth)
        for name in ("gt_inds", "labels", "max_overlaps"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert a.num_gts == b.num_gts
        seen += int((b.gt_inds > 0).sum())
    assert seen or not count or objects < 2


def test_does_not_wait_for_every_object():
    truth = InstanceData(bboxes=boxes(30, 1).float(), labels=torch.zeros(30, dtype=torch.long))
    found = InstanceData(priors=boxes(200, 2).float())
    waits = {}
    for kind in (WholeMaxIoUAssigner, MaxIoUAssigner):
        with CountWaits() as counter:
            kind(0.7, 0.3, 0.3).assign(found, truth)
        waits[kind] = counter.waits
    assert waits[MaxIoUAssigner] >= 30
    assert waits[WholeMaxIoUAssigner] <= 2


def test_configs_take_it():
    train_cfg = read_config("mask_rcnn_metaspike_coco.py").model.train_cfg
    for part, iou in (("rpn", 0.7), ("rcnn", 0.5)):
        built = TASK_UTILS.build(train_cfg[part].assigner)
        assert type(built) is WholeMaxIoUAssigner
        assert built.pos_iou_thr == iou
