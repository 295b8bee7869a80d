"""Draw images, what a model predicts on them, and where it spikes, a row each."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import mmcv
import torch
from mmengine.config import DictAction
from spike_map import record

from mmspike.energy.plots import STYLE
from mmspike.engine.command_line import checkpoints_from_outside, read_config_file
from mmspike.engine.configs import use_scope
from mmspike.engine.inputs import build_model, file_batch
from mmspike.engine.misfits import misfits_in_words

sys.path.append(str(Path(__file__).parents[1]))
from image_demo import predict_and_draw

mpl.use("Agg")
import matplotlib.pyplot as plt


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/showcase.png"), help="picture")
    parser.add_argument("--parts", nargs="+", default=["Stem", "Stage 1", "Stage 2", "Stage 4"])
    parser.add_argument("--score-thr", type=float, default=0.3, help="as in tools/image_demo.py")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    return parser.parse_args()


def rates_on(args: argparse.Namespace, image: str) -> dict[str, torch.Tensor]:
    """Firing rates ``[H, W]`` of the parts, averaged over time."""
    cfg = read_config_file("showcase", args.config, args.cfg_options)
    use_scope(cfg)
    with misfits_in_words("showcase", cfg):
        model = build_model(cfg, args.checkpoint, args.device)
        rates = record(model, file_batch(cfg, image))
    missing = [part for part in args.parts if part not in rates]
    if missing:
        raise SystemExit(f"showcase: --parts: no {', '.join(missing)}; there are {list(rates)}")
    return {part: rates[part].mean(0) for part in args.parts}


def prediction_on(args: argparse.Namespace, image: str) -> object:
    """The picture that ``tools/image_demo.py`` draws."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "prediction.png"
        args.image = image
        predict_and_draw(args, out)
        return mmcv.imread(out, channel_order="rgb")


def main() -> None:
    """Draw."""
    args = parse_args()
    for file in (args.config, args.checkpoint, *args.images):
        if not Path(file).is_file():
            raise SystemExit(f"showcase: no file {file}")
    columns = ["image", "prediction", *(f"spikes, {part.lower()}" for part in args.parts)]
    with checkpoints_from_outside(), mpl.rc_context(STYLE):
        shape = (len(args.images), len(columns))
        size = (1.5 * shape[1], 1.5 * shape[0] + 0.25)
        fig, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
        for row, image in zip(axes, args.images, strict=True):
            row[0].imshow(mmcv.imread(image, channel_order="rgb"))
            row[1].imshow(prediction_on(args, image))
            for ax, rate in zip(row[2:], rates_on(args, image).values(), strict=True):
                ax.imshow(rate, cmap="magma", vmin=0, interpolation="nearest")
        for ax, title in zip(axes[0], columns, strict=True):
            ax.set_title(title, fontsize=9)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(args.out, dpi=110)
    print(args.out)


if __name__ == "__main__":
    main()
