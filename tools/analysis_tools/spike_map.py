"""Show where in an image a network spikes: a panel per stage and time step.

Every panel is the mean firing rate over the channels and neurons of one part of the network, at
the finest of its resolutions. Neurons after a linear layer, and those of RoIs, have no place in
the image and are left out.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib as mpl
import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import DictAction
from torch import Tensor, nn

from mmspike.energy.firing_rate import is_neuron, time_steps_of
from mmspike.energy.names import place_of
from mmspike.energy.plots import STYLE, save_figure
from mmspike.engine.command_line import (
    check_device,
    checkpoints_from_outside,
    read_config_file,
)
from mmspike.engine.configs import use_scope
from mmspike.engine.inputs import Batch, build_model, estimate_norms, file_batch
from mmspike.engine.misfits import misfits_in_words
from mmspike.neurons import levels_of, unit_of

mpl.use("Agg")
import matplotlib.pyplot as plt


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="image file")
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; default: random weights")
    parser.add_argument("--out", type=Path, help="picture; default: work_dirs/spikes_<image>.png")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    return parser.parse_args()


def part_of(name: str) -> str | None:
    """The part of the network that a neuron belongs to; ``None`` for what has no place."""
    return None if name.startswith("roi_head") else place_of(name)[0]


@torch.no_grad()
def record(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Run one image, and average the spikes of every part.

    Returns:
        By part, in the order in which they ran, the mean rate ``[T, H, W]``, at the finest
        resolution of the part's neurons.
    """
    maps: dict[str, list[Tensor]] = {}

    def listen(part: str, neuron: nn.Module, spikes: Tensor) -> None:
        if spikes.dim() == 5 and time_steps_of(neuron, spikes) == spikes.size(0):
            most = (levels_of(neuron) or 1) * unit_of(neuron)
            maps.setdefault(part, []).append(spikes[:, 0].mean(1).cpu() / most)

    handles = [
        module.register_forward_hook(lambda m, _, out, part=part: listen(part, m, out))
        for name, module in model.named_modules()
        if is_neuron(module) and (part := part_of(name)) is not None
    ]
    try:
        model.test_step(batch)
    finally:
        for handle in handles:
            handle.remove()
    sample = batch["data_samples"][0]
    padded = sample.get("batch_input_shape", sample.img_shape)
    means = {}
    for part, rates in maps.items():
        size = max((r.shape[-2:] for r in rates), key=lambda s: s[0] * s[1])
        enlarged = [F.interpolate(r[None], size=size, mode="nearest")[0] for r in rates]
        rows, columns = (
            math.ceil(n * inner / outer)
            for n, inner, outer in zip(size, sample.img_shape, padded, strict=False)
        )
        means[part] = torch.stack(enlarged).mean(0)[:, :rows, :columns]  # without the padding
    return means


def draw(image: np.ndarray, maps: dict[str, Tensor], out: Path, title: str) -> list[Path]:
    """Draw a row per time step, a column per part, with the image in front; on one scale.

    Args:
        image: What the network saw, ``[H, W, 3]`` of 0 to 255.
        maps: Rates ``[T, H, W]`` by part.
        out: Picture to write; a PNG or PDF file gets the other beside it.
        title: What stands above.

    Returns:
        The files.
    """
    steps = max(rates.size(0) for rates in maps.values())
    height, width = image.shape[:2]
    size = (1.25 * (len(maps) + 1) + 0.5, 1.25 * height / width * steps + 0.8)
    fig, axes = plt.subplots(
        steps, len(maps) + 1, figsize=size, layout="constrained", squeeze=False
    )
    top = max(100 * rates.max().item() for rates in maps.values()) or 1.0
    options = {"cmap": "magma", "vmin": 0, "vmax": top, "interpolation": "nearest"}
    for t, row in enumerate(axes):
        for ax, (part, rates) in zip(row[1:], maps.items(), strict=True):
            if t < len(rates):
                shown = ax.imshow(100 * rates[t], extent=(0, width, height, 0), **options)
            if t == 0:
                rows, columns = rates.shape[-2:]
                text = f"{part}\n{rows} x {columns}, {100 * rates.mean():.1f} %"
                ax.set_title(text, fontsize=7)
        row[0].set_ylabel(f"step {t + 1}", fontsize=8)
    axes[0, 0].imshow(image)
    axes[0, 0].set_title("Image", fontsize=7)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    fig.colorbar(shown, ax=axes, label="firing rate, %", pad=0.01, aspect=15 * steps)
    fig.suptitle(title, fontsize=8)
    if out.suffix in (".png", ".pdf"):
        return save_figure(fig, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(out, dpi=200)
    plt.close(fig)
    return [out]


def main() -> None:
    """Draw the spikes of one image."""
    args = parse_args()
    for file in filter(None, (args.image, args.checkpoint)):
        if not Path(file).is_file():
            raise SystemExit(f"spike_map: no file {file}")
    cfg = read_config_file("spike_map", args.config, args.cfg_options)
    check_device("spike_map", args.device)
    out = args.out or Path(f"work_dirs/spikes_{Path(args.image).stem}.png")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg"):
        raise SystemExit(f"spike_map: --out: a picture ends in .png, .jpg, .pdf or .svg, not {out}")
    if cfg.model.get("test_cfg", {}).get("mode") == "slide":
        cfg.model.test_cfg.mode = "whole"  # windows would lie on top of one another
    use_scope(cfg)
    try:
        batch = file_batch(cfg, args.image)
    except ValueError as error:
        raise SystemExit(f"spike_map: {error}") from error
    title = f"{Path(args.config).stem}, {Path(args.image).name}"
    with checkpoints_from_outside(), misfits_in_words("spike_map", cfg):
        torch.manual_seed(0)
        model = build_model(cfg, args.checkpoint, args.device)
        if args.checkpoint is None:
            estimate_norms(model, [batch])
            title += ", RANDOM WEIGHTS"
        maps = record(model, batch)
    if not maps:
        raise SystemExit(f"spike_map: the model of {args.config} has no neurons on maps")
    height, width = batch["data_samples"][0].img_shape[:2]
    image = mmcv.imresize(mmcv.imread(args.image, channel_order="rgb"), (width, height))
    with mpl.rc_context(STYLE):
        files = draw(image, maps, out, title)
    for part, rates in maps.items():
        print(f"{part}: " + " ".join(f"{100 * r:.2f} %" for r in rates.mean((1, 2)).tolist()))
    for file in files:
        print(file)


if __name__ == "__main__":
    main()
