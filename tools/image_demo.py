"""Predict on one image and write a picture: boxes and masks, the class of every pixel, or one."""

from __future__ import annotations

import argparse
import copy
from collections import Counter
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement

from mmspike.checkpoints import CheckpointError
from mmspike.checkpoints.reading import read_checkpoint
from mmspike.engine.classes import find_dataset_meta
from mmspike.engine.command_line import checkpoints_from_outside, read_config_file
from mmspike.engine.configs import use_scope
from mmspike.engine.inputs import build_model, file_batch
from mmspike.engine.misfits import misfits_in_words
from mmspike.engine.testing import with_readable_labels

_VISUALIZERS = {  # by what a model predicts
    "pred_sem_seg": "mmseg.SegLocalVisualizer",
    "pred_score": "mmpretrain.UniversalVisualizer",
    "pred_instances": "mmdet.DetLocalVisualizer",
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="image file")
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", help="picture to write; default: work_dirs/demo_<name of image>")
    parser.add_argument(
        "--score-thr", type=float, default=0.3, help="least score to draw of a detector (0.3)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    return parser.parse_args()


def predict(args: argparse.Namespace, cfg: Config) -> tuple[BaseDataElement, dict[str, Any]]:
    """Predict on ``args.image``.

    Returns:
        The prediction, and the names and colours of its classes.
    """
    use_scope(cfg)
    batch = file_batch(cfg, args.image)
    with torch.no_grad(), misfits_in_words("image_demo", cfg):
        model = build_model(cfg, args.checkpoint, args.device)
        (sample,) = model.test_step(batch)
    content = read_checkpoint(args.checkpoint, hashed=False, mmap=True).content
    meta = content.get("meta") if isinstance(content, dict) else None
    return sample, find_dataset_meta(cfg, model, meta if isinstance(meta, dict) else {})


def enlarge(image: np.ndarray, sample: BaseDataElement) -> tuple[np.ndarray, BaseDataElement]:
    """Enlarge a small image, with what was found in it, such that labels have room.

    Args:
        image: Image ``[H, W, 3]``.
        sample: Its boxes and masks.

    Returns:
        Both, a whole number of times as large: at least 512 pixels in the longer direction.
    """
    times = -(-512 // max(image.shape[:2]))
    if times == 1:
        return image, sample
    sample = copy.deepcopy(sample)
    found = sample.pred_instances
    found.bboxes = found.bboxes * times
    if "masks" in found:
        for axis in (-2, -1):
            found.masks = found.masks.repeat_interleave(times, axis)
    return mmcv.imrescale(image, times), sample


def predict_and_draw(args: argparse.Namespace, out: Path) -> str:
    """Draw the predictions on ``args.image`` and write them to ``out``.

    Returns:
        What was found, in a few words.
    """
    cfg = read_config_file("image_demo", args.config, args.cfg_options)
    if "visualizer" in cfg:
        cfg.visualizer.vis_backends = None  # of a run, which have a folder
    try:
        sample, dataset_meta = predict(args, cfg)
    except CheckpointError:
        raise
    except ValueError as error:
        raise SystemExit(f"image_demo: {error}") from error
    own = next(name for field, name in _VISUALIZERS.items() if field in sample)
    visualizer = {"name": "image_demo", "type": own, **cfg.get("visualizer", {})}
    visualizer = VISUALIZERS.build(with_readable_labels(visualizer))
    visualizer.dataset_meta = dataset_meta
    image = mmcv.imread(args.image, channel_order="rgb")
    if "pred_score" in sample:
        classes = dataset_meta["classes"]
        size = max(512, min(image.shape[:2]))
        visualizer.visualize_cls(image, sample, classes, False, resize=size, out_file=str(out))
        best = sample.pred_score.topk(min(5, len(classes)))
        found = zip(*map(torch.Tensor.tolist, best), strict=True)
        return ", ".join(f"{classes[index]} {score:.1%}" for score, index in found)
    options = {"draw_gt": False, "out_file": str(out)}
    if "pred_sem_seg" not in sample:
        options["pred_score_thr"] = args.score_thr
        image, sample = enlarge(image, sample)
        visualizer.add_datasample("demo", image, sample, **options)
        found = sample.pred_instances[sample.pred_instances.scores >= args.score_thr]
        names = Counter(dataset_meta["classes"][i] for i in found.labels.tolist())
        kinds = ", ".join(f"{count} {name}" for name, count in names.most_common(5))
        count = f"{len(found)} instances of score {args.score_thr} and above"
        return f"{count}: {kinds}" if kinds else count
    visualizer.add_datasample("demo", image, sample, with_labels=False, **options)
    classes = dataset_meta["classes"]
    labels = sample.pred_sem_seg.data.flatten().long().cpu()  # real numbers where it is binary
    shares = labels.bincount(minlength=len(classes)).div(labels.numel()).tolist()
    found = sorted(zip(shares, classes, strict=True), reverse=True)[:5]
    return ", ".join(f"{name} {share:.1%}" for share, name in found if share > 0)


def main() -> None:
    """Predict on one image."""
    args = parse_args()
    for name in ("image", "config", "checkpoint"):
        if not Path(getattr(args, name)).is_file():
            raise SystemExit(f"image_demo: {name}: no file {getattr(args, name)}")
    out = Path(args.out or f"work_dirs/demo_{Path(args.image).stem}.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    with checkpoints_from_outside():
        found = predict_and_draw(args, out)
    print(f"{out}: {found}")


if __name__ == "__main__":
    main()
