"""Classify images with a checkpoint, to see that its weights arrive before training on them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mmspike.backbones import CLASSIFIERS, MetaSpikeFormerClassifier
from mmspike.checkpoints import CheckpointError, load_pretrained, read_checkpoint
from mmspike.checkpoints.sources import arch_of, sort_checkpoint

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for values in [0, 1]
IMAGENET = Path(__file__).with_name("imagenet_classes.txt")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="classification checkpoint: file or http(s) address")
    parser.add_argument("images", nargs="+", type=Path, help="image files")
    parser.add_argument(
        "--prefix", default="", help="beginning of the names of one of several networks"
    )
    parser.add_argument("--time-steps", type=int, default=1, help="time steps T (1)")
    parser.add_argument("--num-heads", type=int, default=8, help="attention heads (8)")
    parser.add_argument("--size", type=int, default=224, help="side of the central crop (224)")
    parser.add_argument("--top", type=int, default=5, help="classes to print per image (5)")
    parser.add_argument(
        "--classes", type=Path, help="class names, one per line; ImageNet's if 1000"
    )
    return parser.parse_args()


def build(
    checkpoint: str, time_steps: int, num_heads: int, prefix: str = ""
) -> MetaSpikeFormerClassifier:
    """Build the classifier that a checkpoint holds, and load it.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or has no classification head.
    """
    source = sort_checkpoint(read_checkpoint(checkpoint, hashed=False, mmap=True), prefix)
    widths = arch_of(source.backbone)
    if widths is None or "head.weight" not in source.heads:
        raise CheckpointError(
            f"checkpoint {checkpoint}: a {source.format} without head.weight, the classifier"
        )
    model = CLASSIFIERS[source.family.name](
        num_classes=source.heads["head.weight"].size(0),
        distilled="head_kd.weight" in source.heads,
        arch={"embed_dims": widths, "num_heads": num_heads},
        in_channels=source.backbone["stages.0.downsample.layer.weight"].size(1),
        time_steps=time_steps,
    )
    print(load_pretrained(model, checkpoint, prefix=prefix))
    return model.eval()


def read_image(path: Path, size: int) -> Tensor:
    """The central crop of an image, ``[1, 3, size, size]``, normalised.

    As in training on ImageNet: the short side becomes 256 pixels for a crop of 224, bicubic.
    """
    image = Image.open(path).convert("RGB")
    scale = size * 256 / 224 / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.crop((left, top, left + size, top + size))
    pixels = (np.asarray(image, dtype=np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(pixels).float().permute(2, 0, 1).unsqueeze(0)


def class_names(file: Path | None, num_classes: int) -> list[str]:
    """Names from a file, ImageNet's for 1000 classes, numbers otherwise."""
    if file is None and num_classes != 1000:
        return [f"class {i}" for i in range(num_classes)]
    names = (file or IMAGENET).read_text(encoding="utf-8").splitlines()
    if len(names) != num_classes:
        raise SystemExit(
            f"check_transfer: --classes {file} names {len(names)} classes, the checkpoint has "
            f"{num_classes}"
        )
    return names


@torch.no_grad()
def main() -> None:
    """Print the likeliest classes of every image."""
    args = parse_args()
    for path in filter(None, [*args.images, args.classes]):
        if not path.is_file():
            raise SystemExit(f"check_transfer: no file {path}")
    try:
        images = [read_image(path, args.size) for path in args.images]
        model = build(args.checkpoint, args.time_steps, args.num_heads, args.prefix)
    except (CheckpointError, ValueError, UnidentifiedImageError) as error:
        raise SystemExit(f"check_transfer: {error}") from error
    names = class_names(args.classes, model.head.out_features)
    heads = "the average of both heads" if model.head_kd is not None else "one head"
    print(f"T = {args.time_steps}, crop {args.size}, {heads}")
    for path, image in zip(args.images, images, strict=True):
        scores = model(image).softmax(-1)[0]
        best = scores.topk(min(args.top, len(names)))
        print(path)
        for score, index in zip(*map(Tensor.tolist, best), strict=True):
            print(f"  {score:6.1%}  {names[index]}")


if __name__ == "__main__":
    main()
