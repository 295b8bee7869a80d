"""Show where in an image a network spikes: a picture per stage and time step.

Every panel is the mean firing rate over the channels and neurons of one part of the network, at
the finest of its resolutions. Neurons after a linear layer, and those of RoIs, have no place in
the image and are left out.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import matplotlib as mpl
import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import DictAction
from torch import Tensor, nn

from mmspike.energy.firing_rate import is_neuron, time_steps_of
from mmspike.engine.command_line import (
    check_device,
    checkpoints_from_outside,
    read_config_file,
)
from mmspike.engine.configs import use_scope
from mmspike.engine.inputs import Batch, build_model, estimate_norms, file_batch
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
    if name.startswith("roi_head"):
        return None
    stage = re.match(r"backbone\.stages\.(\d+)\.", name)
    if stage:
        return "stem" if stage[1] == "0" else f"stage {stage[1]}"
    return name.split(".")[0].replace("_", " ")


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


def draw(image: np.ndarray, maps: dict[str, Tensor], out: Path, title: str) -> None:
    """Draw a row per part, a column per time step, with the image in front.

    Args:
        image: What the network saw, ``[H, W, 3]`` of 0 to 255.
        maps: Rates by part.
        out: Picture to write.
        title: What stands above.
    """
    steps = max(rates.size(0) for rates in maps.values())
    aspect = image.shape[0] / image.shape[1]
    fig, axes = plt.subplots(
        len(maps),
        steps + 1,
        figsize=(2.6 * (steps + 1) + 0.8, (2.6 * aspect + 0.3) * len(maps) + 0.5),
        layout="constrained",
        squeeze=False,
    )
    for row, (part, rates) in zip(axes, maps.items(), strict=True):
        row[0].imshow(image)
        row[0].set_ylabel(f"{part}\n{100 * rates.mean():.1f} %", fontsize=9)
        top = max(100 * rates.max().item(), 1e-9)
        for t, ax in enumerate(row[1:]):
            shown = ax.imshow(
                100 * rates[t],
                cmap="magma",
                vmin=0,
                vmax=top,
                interpolation="nearest",
                extent=(0, image.shape[1], image.shape[0], 0),
            )
            ax.set_title(f"step {t + 1}, {rates.shape[-2]} x {rates.shape[-1]}", fontsize=8)
        for ax in row:
            ax.set(xticks=[], yticks=[])
        fig.colorbar(shown, ax=list(row[1:]), label="firing rate, %", shrink=0.85, pad=0.01)
    fig.suptitle(title, fontsize=9)
    out.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(out, dpi=110)
    plt.close(fig)


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
    with checkpoints_from_outside():
        torch.manual_seed(0)
        model = build_model(cfg, args.checkpoint, args.device)
    title = f"{Path(args.config).stem}, {Path(args.image).name}"
    if args.checkpoint is None:
        estimate_norms(model, [batch])
        title += ", RANDOM WEIGHTS"
    maps = record(model, batch)
    if not maps:
        raise SystemExit(f"spike_map: the model of {args.config} has no neurons on maps")
    height, width = batch["data_samples"][0].img_shape[:2]
    image = mmcv.imresize(mmcv.imread(args.image, channel_order="rgb"), (width, height))
    draw(image, maps, out, title)
    for part, rates in maps.items():
        print(f"{part}: " + " ".join(f"{100 * r:.2f} %" for r in rates.mean((1, 2)).tolist()))
    print(out)


if __name__ == "__main__":
    main()
