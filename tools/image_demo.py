"""Predict on one image and write a picture with boxes and masks."""

from __future__ import annotations

import argparse
from pathlib import Path

import mmcv
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import VISUALIZERS

import mmspike.registry  # noqa: F401  makes "mmspike::" known in configs


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="image file")
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", help="picture to write; default: work_dirs/demo_<name of image>")
    parser.add_argument("--score-thr", type=float, default=0.3, help="least score to draw (0.3)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    return parser.parse_args()


def predict_and_draw(args: argparse.Namespace, out: Path) -> int:
    """Draw the predictions on ``args.image`` and write them to ``out``.

    Returns:
        The number of instances drawn.
    """
    from mmdet.apis import inference_detector, init_detector  # this room needs mmdet

    cfg = Config.fromfile(args.config)
    model = init_detector(
        cfg, args.checkpoint, device=args.device, cfg_options=args.cfg_options or {}
    )
    sample = inference_detector(model, args.image)
    visualizer = VISUALIZERS.build(cfg.visualizer)
    visualizer.dataset_meta = model.dataset_meta
    visualizer.add_datasample(
        "demo",
        mmcv.imread(args.image, channel_order="rgb"),
        sample,
        draw_gt=False,
        pred_score_thr=args.score_thr,
        out_file=str(out),
    )
    return int((sample.pred_instances.scores >= args.score_thr).sum())


def main() -> None:
    """Predict on one image."""
    args = parse_args()
    for name in ("image", "config", "checkpoint"):
        if not Path(getattr(args, name)).is_file():
            raise SystemExit(f"image_demo: {name}: no file {getattr(args, name)}")
    out = Path(args.out or f"work_dirs/demo_{Path(args.image).stem}.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = predict_and_draw(args, out)
    print(f"{out}: {count} instances of score {args.score_thr} and above")


if __name__ == "__main__":
    main()
