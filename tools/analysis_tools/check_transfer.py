"""Classify images with a checkpoint, to see that its weights arrive before training on them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mmspike.archs import PUBLISHED_HEADS
from mmspike.backbones import CLASSIFIERS, MetaSpikeFormerClassifier
from mmspike.backbones.recorded import SETTINGS, recorded_neuron, recorded_options
from mmspike.checkpoints import CheckpointError, load_pretrained, read_checkpoint
from mmspike.checkpoints.record import model_config
from mmspike.checkpoints.report import with_article
from mmspike.checkpoints.sources import arch_of, depths_of, sort_checkpoint
from mmspike.checkpoints.trained_with import describe_neuron, first_neuron
from mmspike.layers.classify import build_classifier_neuron

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
    parser.add_argument(
        "--time-steps", type=int, help="time steps T (what the checkpoint records, or else 1)"
    )
    parser.add_argument(
        "--num-heads", type=int, help="attention heads (what the checkpoint records, or else 8)"
    )
    parser.add_argument("--size", type=int, default=224, help="side of the central crop (224)")
    parser.add_argument("--top", type=int, default=5, help="classes to print per image (5)")
    parser.add_argument(
        "--classes", type=Path, help="class names, one per line; ImageNet's if 1000"
    )
    args = parser.parse_args()
    for name in ("time_steps", "num_heads", "size", "top"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    return args


def build(
    checkpoint: str, time_steps: int | None, num_heads: int | None, prefix: str = ""
) -> MetaSpikeFormerClassifier:
    """Build the classifier that a checkpoint holds, as far as it records it, and load it.

    Args:
        checkpoint: File or address.
        time_steps: T; ``None`` for what the file records, or else 1.
        num_heads: Attention heads; ``None`` for what the file records, or else 8.
        prefix: Beginning of the names of one of several networks.

    Raises:
        CheckpointError: If the checkpoint cannot be read, has no classification head, or was
            trained with neurons that only its author knows.
    """
    file = read_checkpoint(checkpoint, hashed=False, mmap=True)
    source = sort_checkpoint(file, prefix)
    widths = arch_of(source.backbone)
    if widths is None or "head.weight" not in source.heads:
        raise CheckpointError(
            f"checkpoint {checkpoint}: {with_article(source.format)} without head.weight, the "
            "classifier"
        )
    trained = model_config(file.content, file.metadata)
    classifier = CLASSIFIERS[source.family.name]
    options = recorded_options(trained, classifier.backbone_class)
    untold = [name for name in SETTINGS if name not in options]
    recorded_heads = options.pop("num_heads", None)
    heads = recorded_heads if num_heads is None else num_heads
    if heads is None and any(w % PUBLISHED_HEADS for w in widths[2:]):
        raise CheckpointError(
            f"checkpoint {checkpoint}: does not record how many attention heads it has, and its "
            f"widths {widths[2:]} do not divide among {PUBLISHED_HEADS}; give --num-heads"
        )
    heads = PUBLISHED_HEADS if heads is None else heads
    given = {"time_steps": time_steps} if time_steps is not None else {}
    model = classifier(
        num_classes=source.heads["head.weight"].size(0),
        distilled="head_kd.weight" in source.heads,
        arch={"embed_dims": widths, "num_heads": heads, **depths_of(source.backbone)},
        in_channels=source.backbone["stages.0.downsample.layer.weight"].size(1),
        **{**options, **given},
    )
    if isinstance(trained.get("head"), Mapping):
        model.neuron = build_classifier_neuron(recorded_neuron(trained, "head"))
    print(load_pretrained(model, checkpoint, prefix=prefix))
    print(describe(model, untold))
    return model.eval()


def describe(model: MetaSpikeFormerClassifier, untold: Sequence[str]) -> str:
    """What the network computes with beside weights, and who says so.

    Args:
        model: The network.
        untold: Those of :data:`SETTINGS` that the file does not tell.
    """
    backbone = model.backbone
    scale = backbone.attn_settings["attn_scale"]
    neuron = describe_neuron(first_neuron(backbone) or backbone)
    words = f"T = {backbone.time_steps}, {backbone.num_heads} heads, attn_scale = {scale}, {neuron}"
    if len(untold) < len(SETTINGS):
        but = f", but for {', '.join(untold)}, which it does not" if untold else ""
        return f"as the file records{but}, unless the command line says otherwise: {words}"
    return (
        f"the file does not record neurons, heads and T: assuming {words} "
        "(--num-heads, --time-steps)"
    )


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
    except (CheckpointError, TypeError, ValueError, UnidentifiedImageError) as error:
        raise SystemExit(f"check_transfer: {error}") from error
    names = class_names(args.classes, model.head.out_features)
    heads = "the average of both heads" if model.head_kd is not None else "one head"
    print(f"T = {model.backbone.time_steps}, crop {args.size}, {heads}")
    for path, image in zip(args.images, images, strict=True):
        scores = model(image).softmax(-1)[0]
        best = scores.topk(min(args.top, len(names)))
        print(path)
        for score, index in zip(*map(Tensor.tolist, best), strict=True):
            print(f"  {score:6.1%}  {names[index]}")


if __name__ == "__main__":
    main()
