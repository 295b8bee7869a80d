"""Things that go wrong in a training, for configs: ``custom_imports=dict(imports=[...])``."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS


@TRANSFORMS.register_module(force=True)
class SpoilPixel:
    """Make images of floats, and one pixel of one of them something else."""

    def __init__(self, file, value):
        self.file, self.value = file, value

    def __call__(self, results):
        img = results["img"].astype(np.float32)
        if results["img_path"].endswith(self.file):
            img[3, 4, 0] = self.value
        return {**results, "img": img}


@TRANSFORMS.register_module(force=True)
class SpoilBox:
    """Make a coordinate of a box of one image NaN."""

    def __init__(self, file):
        self.file = file

    def __call__(self, results):
        if results["img_path"].endswith(self.file):
            results["gt_bboxes"].tensor[0, 1] = float("nan")
        return results


@TRANSFORMS.register_module(force=True)
class Blank:
    """Paint images in one colour: all, or the one of a file."""

    def __init__(self, file="", value=7):
        self.file, self.value = file, value

    def __call__(self, results):
        if results["img_path"].endswith(self.file):
            results["img"] = np.full_like(results["img"], self.value)
        return results


@HOOKS.register_module(force=True)
class SpoilTensor(Hook):
    """Set an element of a parameter or buffer behind an iteration, counted from 1."""

    def __init__(self, iteration, name, value):
        self.iteration, self.name, self.value = iteration, name, value

    @torch.no_grad()
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            model = runner.model
            tensors = dict(model.named_parameters()) | dict(model.named_buffers())
            tensors[self.name].view(-1)[0] = self.value
