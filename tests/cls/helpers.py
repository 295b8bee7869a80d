"""What the tests of classification share: published files, and small models."""

from __future__ import annotations

import argparse
import json

import torch
from mmengine.registry import MODELS

import mmspike.registry  # noqa: F401  makes "mmspike." known

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def write_published(golden, folder):
    """Write reference numbers as the checkpoint file that they would be published in."""
    params = {
        key.removeprefix("param/"): torch.tensor(value)
        for key, value in golden.items()
        if key.startswith("param/")
    }
    params = {k: v.float() if v.is_floating_point() else v for k, v in params.items()}
    file = folder / "checkpoint.pth"
    torch.save({"model": params, "epoch": 1, "args": argparse.Namespace(lr=1e-3)}, file)
    return str(file)


def arch_of(golden):
    meta = json.loads(str(golden["meta"]))
    return dict(embed_dims=meta["embed_dim"], num_heads=meta["num_heads"])


TINY = dict(embed_dims=[16, 16, 24, 32], num_heads=4)


def classifier_cfg(arch=TINY, backbone="MetaSpikeFormer", num_classes=10, head=(), **options):
    """The config of a classifier."""
    time_steps = options.pop("time_steps", 1)
    return {
        "type": "mmspike.cls.SpikeImageClassifier",
        "data_preprocessor": dict(IMAGENET),
        "backbone": dict(
            type=f"mmspike.{backbone}", arch=arch, out_indices=(4,), time_steps=time_steps
        ),
        "head": dict(
            type="mmspike.cls.SpikeClsHead",
            in_channels=arch["embed_dims"][-1],
            num_classes=num_classes,
            **dict(head),
        ),
        **options,
    }


def build(*args, **options):
    """A classifier with initial weights."""
    model = MODELS.build(classifier_cfg(*args, **options))
    model.init_weights()
    return model


def batch(num=2, size=32, num_classes=10):
    """Images and labels, as a data loader gives them."""
    from mmpretrain.structures import DataSample

    images = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(num)]
    samples = [DataSample().set_gt_label(i % num_classes) for i in range(num)]
    return {"inputs": images, "data_samples": samples}
