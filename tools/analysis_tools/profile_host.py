"""Count what a training step of Mask R-CNN asks of the processor, part by part.

A GPU waits for the processor to launch operators, and the processor for the GPU wherever it wants
to know a number. Both can be counted on a CPU: operators of each part of the step, and how often it
reads a number or finds indices, which on a GPU is a wait.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections import Counter
from pathlib import Path

from gpu_trainings import BATCH, CONFIGS, read_training
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from mmspike.datasets.shapes import ShapesSettings, write_shapes
from mmspike.engine.inputs import build_model

PARTS = {
    "backbone and neck": ("", "extract_feat"),
    "RPN, forward": ("rpn_head", "forward"),
    "RPN, targets": ("rpn_head", "get_targets"),
    "RPN, losses and targets": ("rpn_head", "loss_by_feat"),
    "RPN, proposals": ("rpn_head", "predict_by_feat"),
    "RoIs, assignment": ("roi_head.bbox_assigner", "assign"),
    "RoIs, sampling": ("roi_head.bbox_sampler", "sample"),
    "boxes": ("roi_head", "bbox_loss"),
    "masks": ("roi_head", "mask_loss"),
}
WAITS = ("aten::_local_scalar_dense", "aten::nonzero")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="of the images; counts differ little")
    parser.add_argument("--images", type=int, default=BATCH, help=f"of a step ({BATCH})")
    parser.add_argument("--mmdet-assigner", action="store_true", help="take mmdet's MaxIoUAssigner")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model")
    return parser.parse_args()


def name_parts(model: nn.Module) -> None:
    """Let the profiler see which part of the step an operator belongs to."""
    for label, (path, method) in PARTS.items():
        owner = functools.reduce(getattr, filter(None, path.split(".")), model)
        setattr(owner, method, record_function(f"part: {label}")(getattr(owner, method)))


def count(result: profile) -> tuple[Counter[str], Counter[str]]:
    """Operators that Python or autograd called, and waits, of each part; ``all`` together."""
    operators, waits = Counter(), Counter()
    for event in result.events():
        parent = event.cpu_parent
        nested = parent is not None and parent.name.startswith("aten::")
        if not event.name.startswith("aten::") or (nested and event.name not in WAITS):
            continue
        labels = {"all"}
        while parent is not None:
            if parent.name.startswith("part: "):
                labels.add(parent.name.removeprefix("part: "))
            parent = parent.cpu_parent
        operators.update([] if nested else labels)
        waits.update(labels if event.name in WAITS else [])
    return operators, waits


def main() -> None:
    """Count one step, after one that does not count."""
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "shapes"
        settings = ShapesSettings(num_train=args.images, num_val=1, size=args.size, max_shapes=8)
        write_shapes(data, settings)
        config = CONFIGS / "mask_rcnn_metaspike_coco.py"
        cfg = read_training(config, data, args.size, args.dry_run)
        loader = {"num_workers": 0, "persistent_workers": False, "pin_memory": False}
        cfg.train_dataloader.update(batch_size=args.images, **loader)
        if args.mmdet_assigner:
            for part in ("rpn", "rcnn"):
                cfg.model.train_cfg[part].assigner.type = "MaxIoUAssigner"
        init_default_scope("mmdet")
        model = build_model(cfg, None, "cpu").train()
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    name_parts(model)

    def step() -> None:
        inputs = model.data_preprocessor(batch, training=True)
        loss, _ = model.parse_losses(model(**inputs, mode="loss"))
        with record_function("part: backward"):
            loss.backward()

    step()
    with profile(activities=[ProfilerActivity.CPU]) as result:
        step()
    operators, waits = count(result)
    print("| part | operators | waits |\n|---|---|---|")
    for label, number in operators.most_common():
        print(f"| {label} | {number:,} | {waits[label]:,} |")


if __name__ == "__main__":
    main()
