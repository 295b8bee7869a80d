"""Draw a finished run: curves, predictions beside ground truth, and firing rates.

Reads the logs of a work dir, of all runs if training was resumed, and the data that the config
validates on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import matplotlib as mpl
import mmcv
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from mmspike.checkpoints import load_whole
from mmspike.energy.firing_rate import FiringRateMonitor, NeuronRow, rates_per_frame
from mmspike.energy.plots import STYLE, firing_rates, save_figure, spell
from mmspike.engine.command_line import checkpoints_from_outside, read_config_file
from mmspike.engine.configs import use_scope

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

mpl.rcParams.update(STYLE)

SILENT = 1e-3
BLUE, ORANGE = "#2a6f97", "#d95f02"
# key in the log: name, unit, colour, line, where its last value is written
METRICS = {
    "coco/bbox_mAP": ("bbox mAP", 1.0, BLUE, "o-", 6),
    "coco/segm_mAP": ("segm mAP", 1.0, ORANGE, "o-", -14),
    "coco/bbox_mAP_50": ("bbox mAP@0.5", 1.0, BLUE, "s--", 6),
    "coco/segm_mAP_50": ("segm mAP@0.5", 1.0, ORANGE, "s--", -14),
    "mIoU": ("mIoU", 0.01, BLUE, "o-", 6),
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("work_dir", help="folder of the run; pictures are written there")
    parser.add_argument("--num-images", type=int, default=8, help="images to draw (8)")
    parser.add_argument("--score-thr", type=float, default=0.5, help="least score to draw (0.5)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    return parser.parse_args()


def read_scalars(work_dir: Path) -> list[dict]:
    """Read the records of a training in a work dir, of all runs that it was resumed in.

    Raises:
        SystemExit: If there is no log.
    """
    records: list[dict] = []
    for log in sorted(work_dir.glob("*/vis_data/scalars.json")):  # named after their time
        run = [json.loads(line) for line in log.read_text().splitlines()]
        steps = [record["step"] for record in run if "loss" in record]
        if steps:
            records = [*_before(records, steps), *run]
    if not records:
        raise SystemExit(f"report_run: no */vis_data/scalars.json of a training in {work_dir}")
    return records


def _before(records: list[dict], steps: list[int]) -> list[dict]:
    """What is left of earlier runs when another logs these steps: nothing, if it starts anew."""
    interval = steps[1] - steps[0] if len(steps) > 1 else 1
    if steps[0] <= interval:
        return []
    later = (i for i, r in enumerate(records) if "loss" in r and r["step"] >= steps[0])
    return records[: next(later, len(records))]


def draw_curves(records: list[dict], out: Path) -> None:
    """Draw losses and metrics over the steps of training."""
    train = [r for r in records if "loss" in r]
    val, step = [], 0
    for record in records:  # a validation does not tell its step, but follows the training's
        if "loss" in record:
            step = record["step"]
        elif any(key in record for key in METRICS):
            val.append({**record, "step": step})
    fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    steps = [r["step"] for r in train]
    for key in [k for k in train[0] if k.startswith("loss")]:
        total = key == "loss"
        name = "sum" if total else key.removeprefix("loss_").replace("_", " ")
        style = {"lw": 2, "color": "black", "zorder": 3} if total else {"lw": 1}
        left.plot(steps, [r.get(key, np.nan) for r in train], label=name, **style)
    left.set(title="Training loss", xlabel="step", ylim=(0, None))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "fontsize": 8}
    left.legend(ncols=3, **below)
    for key, (name, unit, colour, line, offset) in METRICS.items():
        points = [(r["step"], r[key] * unit) for r in val if key in r]
        if points:
            right.plot(*zip(*points, strict=True), line, color=colour, label=name)
            last = f"{points[-1][1]:.3f}"
            at = {"textcoords": "offset points", "color": colour, "zorder": 3}
            white = {"fc": "white", "ec": "none", "pad": 0.3}
            right.annotate(last, points[-1], (-24, offset), bbox=white, **at)
    right.set(title="Validation", xlabel="step", xlim=left.get_xlim(), ylim=(0, 1))
    right.legend(ncols=2, **below)
    for ax in (left, right):
        ax.grid(alpha=0.3)
    save_figure(fig, out)


def draw_predictions(samples: list, metainfo: dict, thr: float, out: Path) -> None:
    """Draw each image with its ground truth (above) and its predictions (below)."""
    classes, palette = metainfo["classes"], metainfo.get("palette")
    width = 2.4 * len(samples)
    fig, axes = plt.subplots(2, len(samples), figsize=(width, 5.4), squeeze=False)
    colours = mpl.colormaps["tab10"].colors
    by_pixel = "pred_sem_seg" in samples[0]
    if by_pixel and palette:
        colours = [[value / 255 for value in colour] for colour in palette]
    for column, sample in zip(axes.T, samples, strict=True):
        image = mmcv.imread(sample.img_path, channel_order="rgb")
        if by_pixel:
            draw_labels(column[0], image, sample.gt_sem_seg.data[0].cpu().numpy(), colours)
            draw_labels(column[1], image, sample.pred_sem_seg.data[0].cpu().numpy(), colours)
            continue
        truth, found = sample.gt_instances, sample.pred_instances
        draw_instances(column[0], image, truth.cpu(), colours)
        draw_instances(column[1], image, found[found.scores >= thr].cpu(), colours)
    axes[0, 0].set_ylabel("ground truth")
    axes[1, 0].set_ylabel("prediction" if by_pixel else f"prediction (score >= {thr})")
    names = classes[: len(colours)]
    handles = [mpl.patches.Patch(color=c, label=n) for c, n in zip(colours, names, strict=False)]
    fig.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)
    fig.subplots_adjust(0.02, 0.07, 0.995, 0.995, wspace=0.03, hspace=0.03)
    for ax in axes.flat:
        if ax.texts:
            from mmspike.det.visualizers import spread_texts  # needs mmdet

            spread_texts(ax)
    save_figure(fig, out)


def draw_instances(ax: Axes, image: np.ndarray, instances: InstanceData, colours: Sequence) -> None:
    """Draw masks, boxes and scores of one image, ``[H, W, 3]``, coloured by class."""
    ax.imshow(image)
    ax.set(xticks=[], yticks=[])
    masks = instances.get("masks")
    masks = getattr(masks, "masks", masks)  # mmdet keeps those of the ground truth in a class
    for i, label in enumerate(instances.labels.tolist()):
        colour = colours[label % len(colours)]
        x1, y1, x2, y2 = np.asarray(instances.bboxes[i], dtype=float).reshape(4) - 0.5
        ax.add_patch(mpl.patches.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour))
        if masks is not None:
            mask = np.asarray(masks[i], dtype=float)
            ax.imshow(np.dstack([*(np.full_like(mask, c) for c in colour), 0.5 * mask]))
        if "scores" in instances:
            text = f"{instances.scores[i]:.2f}"
            style = {"fontsize": 6, "color": "white", "backgroundcolor": colour}
            ax.text(max(x1, 1), max(y1, 1), text, va="top", clip_on=True, **style)


def draw_labels(ax: Axes, image: np.ndarray, labels: np.ndarray, colours: Sequence) -> None:
    """Draw the class of every pixel, ``[H, W]``, over its image in grey; 255 is not labelled."""
    labels = labels.astype(int)  # a binary segmentor predicts real numbers
    ax.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    tint = np.asarray(colours, dtype=float)[labels % len(colours)]
    ax.imshow(np.dstack([tint, np.where(labels == 255, 0.0, 0.7)]))


def draw_firing_rates(neurons: Sequence[NeuronRow], out: Path) -> None:
    """Draw a dot per layer of neurons, or block of them, and step; write the numbers beside it."""
    save_figure(firing_rates(neurons), out)
    out.with_suffix(".json").write_text(json.dumps(rates_per_frame(neurons), indent=1))


def tell_firing_rates(neurons: Sequence[NeuronRow]) -> None:
    """Print the mean, and the layers that are silent."""
    if not neurons:
        print("firing rate: none, the model has no neurons that spike")
        return
    rates, levels = rates_per_frame(neurons), {row.levels for row in neurons}
    mean = sum(rates.values()) / len(rates)
    integers = "" if levels == {1} else f", per binary frame (D = {spell(levels)})"
    print(f"firing rate: {mean:.1%} on average over {len(rates)} layers of neurons{integers}")
    silent = [name for name, rate in rates.items() if rate < SILENT]
    print(f"silent layers (below {SILENT:.1%}): {', '.join(silent) or 'none'}")


def load_model(cfg: Config, checkpoint: str, device: str) -> nn.Module:
    """Build the model of a config, with the weights of a checkpoint, to predict."""
    model = MODELS.build(cfg.model)
    load_whole(model, checkpoint)
    return revert_sync_batchnorm(model).to(device).eval()


def main() -> None:
    """Draw the run."""
    args = parse_args()
    work_dir = Path(args.work_dir)
    cfg = read_config_file("report_run", args.config, args.cfg_options)
    use_scope(cfg)
    records = read_scalars(work_dir)
    draw_curves(records, work_dir / "curves.png")

    with checkpoints_from_outside():
        model = load_model(cfg, args.checkpoint, args.device)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(cfg.val_dataloader)
    samples = []

    @torch.no_grad()
    def run() -> None:
        for data in islice(loader, -(-args.num_images // loader.batch_size)):
            samples.extend(model.test_step(data))

    with FiringRateMonitor(model) as monitor:
        run()
    neurons = [row for row in monitor.rows if row.outputs]
    samples, metainfo = samples[: args.num_images], loader.dataset.metainfo
    draw_predictions(samples, metainfo, args.score_thr, work_dir / "predictions.png")
    if neurons:
        draw_firing_rates(neurons, work_dir / "firing_rates.png")

    losses = [r["loss"] for r in records if "loss" in r]
    print(f"loss: {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
    for key, value in next((r for r in records[::-1] if METRICS.keys() & r.keys()), {}).items():
        if key in METRICS:
            print(f"{METRICS[key][0]}: {value * METRICS[key][1]:.3f}")
    tell_firing_rates(neurons)
    for name in ("predictions.*", "curves.*", "firing_rates.*"):
        for file in sorted(work_dir.glob(name)):
            print(file)


if __name__ == "__main__":
    main()
