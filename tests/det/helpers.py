"""Small spiking detectors and inputs for them."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from tests.conftest import ROOT


def read_config(name: str, **options) -> Config:
    cfg = Config.fromfile(ROOT / "configs" / name)
    cfg.merge_from_dict(options)
    return cfg


def small_config(time_steps: int = 1, **options) -> Config:
    """The demo's detector: narrow, 3 classes."""
    return read_config(
        "mask_rcnn_metaspike_shapes.py", **{"model.backbone.time_steps": time_steps, **options}
    )


def build(cfg: Config):
    init_default_scope("mmdet")
    torch.manual_seed(0)
    return MODELS.build(cfg.model)


def make_batch(model, size=(96, 128), boxes_per_image=(2, 3), num_classes=3) -> dict:
    """A batch as a data loader gives it, through the model's preprocessor."""
    generator = torch.Generator().manual_seed(1)
    height, width = size
    images, samples = [], []
    for count in boxes_per_image:
        images.append(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8))
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) / 2
        extent = 16 + torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) / 4
        boxes = torch.cat([corner, corner + extent], dim=1)
        masks = torch.zeros(count, height, width, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(
            metainfo=dict(
                img_id=len(samples),
                img_shape=size,
                ori_shape=size,
                scale_factor=(1.0, 1.0),
                flip=False,
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes,
            labels=torch.randint(0, num_classes, (count,), generator=generator),
            masks=BitmapMasks(masks.numpy(), height, width),
        )
        samples.append(sample)
    data = dict(inputs=images, data_samples=samples)
    return model.data_preprocessor(data, training=True)
