"""Predict on one image and write a picture: boxes and masks, or the class of every pixel."""

from __future__ import annotations

import argparse
from pathlib import Path

import mmcv
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement

from mmspike.checkpoints import load_whole
from mmspike.engine.command_line import checkpoints_from_outside


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


def predict(args: argparse.Namespace, cfg: Config) -> tuple[BaseDataElement, dict]:
    """Predict on ``args.image`` with the host that the config is for.

    Returns:
        The prediction, and what the host says about its classes.
    """
    if cfg.default_scope == "mmseg":
        from mmseg.apis import inference_model, init_model

        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
        model = init_model(cfg, args.checkpoint, device=args.device)
        load_whole(model, args.checkpoint)  # the host loads what happens to fit
        return inference_model(model, args.image), model.dataset_meta
    from mmdet.apis import inference_detector, init_detector

    options = args.cfg_options or {}
    model = init_detector(cfg, args.checkpoint, device=args.device, cfg_options=options)
    load_whole(model, args.checkpoint)
    return inference_detector(model, args.image), model.dataset_meta


def predict_and_draw(args: argparse.Namespace, out: Path) -> str:
    """Draw the predictions on ``args.image`` and write them to ``out``.

    Returns:
        What was found, in a few words.
    """
    cfg = Config.fromfile(args.config)
    sample, dataset_meta = predict(args, cfg)
    visualizer = VISUALIZERS.build(cfg.visualizer)
    visualizer.dataset_meta = dataset_meta
    image = mmcv.imread(args.image, channel_order="rgb")
    options = {"draw_gt": False, "out_file": str(out)}
    if "pred_sem_seg" not in sample:
        options["pred_score_thr"] = args.score_thr
        visualizer.add_datasample("demo", image, sample, **options)
        count = int((sample.pred_instances.scores >= args.score_thr).sum())
        return f"{count} instances of score {args.score_thr} and above"
    visualizer.add_datasample("demo", image, sample, with_labels=False, **options)
    classes, labels = dataset_meta["classes"], sample.pred_sem_seg.data.flatten().cpu()
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
