"""Models and images for tools that look into a model: from a config's data, a file, or noise."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Subset

from mmspike.checkpoints import load_whole
from mmspike.engine.configs import (
    as_list,
    host_of,
    is_pretrained,
    leaf_of,
    type_name,
    use_scope,
)
from mmspike.engine.misfits import MisfitError
from mmspike.engine.preflight.report import spread

Batch = dict[str, Any]


def build_model(cfg: Config, checkpoint: str | None, device: str | torch.device) -> nn.Module:
    """Build a config's model in evaluation mode.

    Args:
        cfg: Config of a detector, segmentor or classifier.
        checkpoint: File with its weights; ``None`` draws them by chance, a pretrained backbone
            included, and leaves out the teacher of a classifier.
        device: Where to put it.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or is another model's.
        Exception: What a part that cannot be built raises
            (:func:`mmspike.engine.misfits.misfits_in_words`).
    """
    use_scope(cfg)
    if checkpoint is None:
        _drop_pretrained(cfg.model)
    if cfg.get("data_preprocessor") is not None:  # as mmengine's runner does
        cfg.model.setdefault("data_preprocessor", cfg.data_preprocessor)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    if checkpoint is None:
        logger = MMLogger.get_current_instance()
        level = logger.level
        logger.setLevel(logging.WARNING)  # or it lists every parameter
        model.init_weights()
        logger.setLevel(level)
    else:
        load_whole(model, checkpoint)
    return model.to(device).eval()


def _drop_pretrained(cfg: Any) -> None:
    if isinstance(cfg, dict):
        given = as_list(cfg.get("init_cfg"))
        if any(map(is_pretrained, given)):
            cfg["init_cfg"] = [c for c in given if not is_pretrained(c)] or None
        if type_name(cfg.get("teacher")) == "Teacher":  # which initialisation would load
            cfg["teacher"] = None
        for value in cfg.values():
            _drop_pretrained(value)
    elif isinstance(cfg, list | tuple):
        for value in cfg:
            _drop_pretrained(value)


@torch.no_grad()
def estimate_norms(model: nn.Module, batches: Sequence[Batch]) -> None:
    """Give batch norms the statistics of some images, as a model with random weights needs.

    With none, nearly all neurons of a fresh model are silent in evaluation.

    Args:
        model: Detector, segmentor or classifier; left in the mode that it was in.
        batches: What its ``test_step`` takes.
    """
    norms = {m: m.momentum for m in model.modules() if isinstance(m, _BatchNorm)}
    handles = []
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all calls
        handles.append(norm.register_forward_pre_hook(_train_if_possible))
    try:
        for batch in batches:
            model.test_step(batch)
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum in norms.items():
            norm.momentum = momentum
            norm.eval()


def _train_if_possible(norm: nn.Module, args: tuple[Tensor]) -> None:
    norm.train(args[0].numel() > args[0].size(1))  # one value per channel has no variance


def val_batches(cfg: Config, num_images: int) -> Any:
    """The first images that a config validates on, one by one.

    Those of a classifier, whose data sets are sorted by class, are taken evenly from all of it.

    Returns:
        A data loader, which has a length.

    Raises:
        ValueError: If the config has no ``val_dataloader``.
        FileNotFoundError: If its data is not there.
    """
    if cfg.get("val_dataloader") is None:
        raise ValueError(f"{cfg.filename} has no val_dataloader")
    loader = cfg.val_dataloader.copy()
    for key in ("prefetch_factor", "timeout"):
        loader.pop(key, None)
    loader.update(batch_size=1, num_workers=0, persistent_workers=False)
    try:
        dataset = DATASETS.build(loader.dataset)
        if hasattr(dataset, "full_init"):
            dataset.full_init()
    except AssertionError as error:  # mmseg's
        raise FileNotFoundError(str(error)) from error
    indices = range(len(dataset))
    chosen = spread(indices, num_images) if host_of(cfg) == "mmpretrain" else indices[:num_images]
    loader.dataset = Subset(dataset, chosen)
    return Runner.build_dataloader(loader, seed=0)


def file_batch(cfg: Config, image: str | Path) -> Batch:
    """One image file, as a config prepares it for testing.

    Raises:
        ValueError: If it is no image.
    """
    if cv2.imread(str(image)) is None:
        raise ValueError(f"{image} is no image that can be read")
    pipeline = [t for t in _test_pipeline(cfg) if not type_name(t).endswith("LoadAnnotations")]
    return _collate(Compose(pipeline)({"img_path": str(image), "img_id": 0}))


def noise_batch(cfg: Config, size: tuple[int, int], seed: int = 0) -> Batch:
    """One image of uniform noise, of just this height and width.

    Raises:
        MisfitError: If the backbone reads other channels than images are normalised in.
    """
    generator = torch.Generator().manual_seed(seed)
    channels = cfg.model.backbone.get("in_channels", 3)
    normalise = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    means = normalise.get("mean") or [0.0]
    if len(means) not in (1, channels):
        raise MisfitError(
            f"model.backbone.in_channels is {channels}, but model.data_preprocessor.mean has "
            f"{len(means)} values: images of {len(means)} channels"
        )
    noise = torch.randint(0, 256, (*size, channels), generator=generator, dtype=torch.uint8)
    data = {
        "img": noise.numpy(),
        "img_id": 0,
        "img_path": None,
        "img_shape": size,
        "ori_shape": size,
        "pad_shape": size,
        "scale_factor": (1.0, 1.0),
        "flip": False,
        "flip_direction": None,
    }
    return _collate(Compose([_test_pipeline(cfg)[-1]])(data))


def _test_pipeline(cfg: Config) -> list[dict[str, Any]]:
    return leaf_of(cfg.test_dataloader.dataset)["pipeline"]


def _collate(sample: dict[str, Any]) -> Batch:
    return {"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]}
