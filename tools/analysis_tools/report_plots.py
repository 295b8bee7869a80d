"""The figures of a run's report: curves, predictions beside ground truth, and firing rates."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import shorten
from typing import Any

import matplotlib as mpl
import mmcv
import numpy as np
from mmengine.structures import BaseDataElement, InstanceData

from mmspike.energy.firing_rate import NeuronRow, rates_per_frame
from mmspike.energy.plots import STYLE, firing_rates, save_figure

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

mpl.rcParams.update(STYLE)

BLUE, ORANGE = "#2a6f97", "#d95f02"
# key in the log: name, unit, colour, line
METRICS = {
    "coco/bbox_mAP": ("bbox mAP", 1.0, BLUE, "o-"),
    "coco/segm_mAP": ("segm mAP", 1.0, ORANGE, "o-"),
    "coco/bbox_mAP_50": ("bbox mAP@0.5", 1.0, BLUE, "s--"),
    "coco/segm_mAP_50": ("segm mAP@0.5", 1.0, ORANGE, "s--"),
    "mIoU": ("mIoU", 0.01, BLUE, "o-"),
    "accuracy/top1": ("top-1", 0.01, BLUE, "o-"),
    "accuracy/top5": ("top-5", 0.01, ORANGE, "s--"),
}
_TOP_K = re.compile(r"accuracy/top(\d+)")
_OTHER_TOP_K = (("#4f8a3c", "^:"), ("#8c6bb1", "v-."), ("#4a4a4a", "d:"))
"""Colours and lines of accuracies among other numbers of classes, in turn."""
_GAP = 0.06
"""Least distance of two numbers at the right of a panel, as a share of its height."""


def metrics_in(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, float, str, str]]:
    """Those of a log's numbers that are metrics, as in ``METRICS``, with top-k of any k."""
    keys = dict.fromkeys(key for record in records for key in record)
    found = {key: about for key, about in METRICS.items() if key in keys}
    others = (m[1] for key in keys if key not in METRICS and (m := _TOP_K.fullmatch(key)))
    for k, style in zip(sorted(others, key=int), cycle(_OTHER_TOP_K), strict=False):
        found[f"accuracy/top{k}"] = (f"top-{k}", 0.01, *style)
    return found


def validations(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of validations, each with the last step of training that was logged before."""
    metrics, found, step = metrics_in(records), [], 0
    for record in records:  # a validation does not tell its step, but follows the training's
        if "loss" in record:
            step = record["step"]
        elif metrics.keys() & record.keys():
            found.append({**record, "step": step})
    return found


def draw_curves(records: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Draw losses and metrics over the steps of training."""
    train, val = [r for r in records if "loss" in r], validations(records)
    fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    steps = [r["step"] for r in train]
    losses = [k for k in train[0] if k.startswith("loss")]
    for key in losses:
        total = key == "loss"
        whole = "sum" if len(losses) > 1 else "loss"
        name = whole if total else key.removeprefix("loss_").replace("_", " ")
        style = {"lw": 2, "color": "black", "zorder": 3} if total else {"lw": 1}
        style["marker"] = "o" if len(steps) == 1 else ""  # a line of one point is not seen
        left.plot(steps, [r.get(key, np.nan) for r in train], label=name, **style)
    highest = max((r["loss"] for r in train if np.isfinite(r["loss"])), default=1.0)
    left.set(title="Training loss", xlabel="step", ylim=(0, 1.05 * highest or 1.0))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "fontsize": 8}
    left.legend(ncols=3, **below)
    ends = []
    for key, (name, unit, colour, line) in metrics_in(val).items():
        points = [(r["step"], r[key] * unit) for r in val if key in r]
        if points:
            right.plot(*zip(*points, strict=True), line, color=colour, label=name, clip_on=False)
            ends.append((points[-1][1], colour))
    right.set(title="Validation", xlabel="step", xlim=left.get_xlim(), ylim=(0, 1))
    write_ends(right, ends)
    if ends:
        right.legend(ncols=2, **below)
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
    save_figure(fig, out)


def write_ends(ax: Axes, ends: Sequence[tuple[float, str]]) -> None:
    """Write the last values of curves, from 0 to 1, to the right of them, one above the other."""
    places: list[float] = []
    for value, _ in sorted(ends):
        places.append(max(value, places[-1] + _GAP) if places else value)
    for i in reversed(range(len(places))):  # none higher than the panel
        places[i] = min(places[i], 1 - _GAP * (len(places) - 1 - i))
    for (value, colour), place in zip(sorted(ends), places, strict=True):
        at = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
        ax.annotate(f"{value:.3f}", (1, place), (5, 0), color=colour, **at)


def draw_predictions(
    samples: Sequence[BaseDataElement], metainfo: Mapping[str, Any], thr: float, out: Path
) -> None:
    """Draw each image with its ground truth (above) and its predictions (below).

    Args:
        samples: Predictions of a detector or segmentor.
        metainfo: That of the data set: ``classes`` and, if there is one, ``palette``.
        thr: Least score of what is drawn of a detector.
        out: Picture to write.
    """
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


def draw_classes(
    samples: Sequence[BaseDataElement], metainfo: Mapping[str, Any], out: Path
) -> None:
    """Draw each image with the likeliest class above it, and the right one where it is another.

    Args:
        samples: A classifier's predictions.
        metainfo: That of the data set, with ``classes``.
        out: Picture to write.
    """
    columns = min(4, len(samples))
    rows = -(-len(samples) // columns)
    size = (1.9 * columns, 2.25 * rows + 0.3)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    names = [shorten(str(name).split(",")[0], 28) for name in metainfo["classes"]]
    for ax, sample in zip(axes.flat, samples, strict=False):
        ax.imshow(mmcv.imread(sample.img_path, channel_order="rgb"))
        found, truth = sample.pred_label.tolist(), sample.gt_label.tolist()
        right = found == truth
        scores = sample.pred_score[sample.pred_label].tolist()
        told = ", ".join(f"{names[i]} {s:.0%}" for i, s in zip(found, scores, strict=True))
        wanted = "" if right else f"\ntruth: {', '.join(names[i] for i in truth)}"
        ax.set_title(told + wanted, color=BLUE if right else ORANGE, fontsize=8)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax in axes.flat[len(samples) :]:
        ax.remove()
    handles = [mpl.patches.Patch(color=c, label=n) for c, n in ((BLUE, "right"), (ORANGE, "wrong"))]
    fig.legend(handles=handles, loc="outside lower center", ncols=2)
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
