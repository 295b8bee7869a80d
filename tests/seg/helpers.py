"""Small spiking segmentors and inputs for them."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import mmspike.registry  # noqa: F401  makes "mmseg::" known in configs
from tests.conftest import ROOT


def read_config(name: str, **options) -> Config:
    cfg = Config.fromfile(ROOT / "configs" / name)
    cfg.merge_from_dict(options)
    return cfg


def small_config(time_steps: int = 1, **options) -> Config:
    """The demo's segmentor: narrow, 4 classes."""
    return read_config(
        "semantic_fpn_metaspike_shapes.py", **{"model.backbone.time_steps": time_steps, **options}
    )


def build(cfg: Config):
    init_default_scope("mmseg")
    torch.manual_seed(0)
    return MODELS.build(cfg.model)


def make_batch(model, size=(96, 128), num_images=2, num_classes=4, labels=None) -> dict:
    """A batch as a data loader gives it, through the model's preprocessor."""
    generator = torch.Generator().manual_seed(1)
    images, samples = [], []
    for _ in range(num_images):
        images.append(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8))
        drawn = torch.randint(0, num_classes, (1, *size), generator=generator)
        sample = SegDataSample(
            metainfo=dict(ori_shape=size, img_shape=size, pad_shape=size, flip=False)
        )
        sample.gt_sem_seg = PixelData(data=drawn if labels is None else labels)
        samples.append(sample)
    model.data_preprocessor.size = None  # as it lies, no padding to a crop
    model.data_preprocessor.size_divisor = 1
    return model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
