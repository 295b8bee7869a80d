"""Count operations, firing rates and energy of a model, layer by layer.

Runs images of the config's validation set (or one image, or noise) and writes energy.json,
energy.csv and three pictures. docs/energy.md says what is counted and how.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

import mmspike.registry  # noqa: F401  makes "mmspike::" known in configs
from mmspike.energy import Conventions, EnergyReport, measure
from mmspike.energy.plots import draw_report
from mmspike.energy.table import format_report
from mmspike.engine.command_line import (
    check_device,
    checkpoints_from_outside,
    read_config_file,
)
from mmspike.engine.configs import use_scope
from mmspike.engine.inputs import (
    Batch,
    build_model,
    estimate_norms,
    file_batch,
    noise_batch,
    val_batches,
)
from mmspike.engine.misfits import misfits_in_words


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; default: random weights")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--data", metavar="IMAGE", help="an image file; default: the images validated on"
    )
    what.add_argument(
        "--shape", nargs=2, type=int, metavar=("H", "W"), help="noise of this height and width"
    )
    parser.add_argument("--num-images", type=int, help="images of the validation set (10)")
    parser.add_argument(
        "--out", type=Path, help="folder; default: a new one, work_dirs/energy/<config>/<time>"
    )
    defaults = Conventions()
    parser.add_argument("--mac-pj", type=float, default=defaults.mac_pj, help="pJ per MAC (4.6)")
    parser.add_argument("--ac-pj", type=float, default=defaults.ac_pj, help="pJ per addition (0.9)")
    parser.add_argument(
        "--image-layer",
        choices=["once", "per_step"],
        default=defaults.image_layer,
        help="how often the convolution that reads the image is charged (once)",
    )
    parser.add_argument(
        "--borders",
        choices=["formula", "exact"],
        default=defaults.borders,
        help="rate times MACs, or every addition that zero padding leaves (formula)",
    )
    parser.add_argument("--brief", action="store_true", help="print the parts, not the layers")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    args = parser.parse_args()
    if args.num_images is not None and (args.data or args.shape):
        parser.error("--num-images goes with the validation set, not with --data or --shape")
    if args.num_images is not None and args.num_images < 1:
        parser.error(f"--num-images must be at least 1, got {args.num_images}")
    if args.shape and min(args.shape) < 1:
        parser.error(f"--shape must be two positive numbers, got {args.shape}")
    return args


def choose_images(args: argparse.Namespace, cfg: Config) -> tuple[Sequence[Batch], str]:
    """The images that the arguments name, and what they are."""
    if args.shape:
        return [noise_batch(cfg, tuple(args.shape))], "noise, {} x {}".format(*args.shape)
    if args.data:
        if not Path(args.data).is_file():
            raise SystemExit(f"get_energy: --data: no file {args.data}")
        try:
            return [file_batch(cfg, args.data)], Path(args.data).name
        except ValueError as error:
            raise SystemExit(f"get_energy: --data: {error}") from error
    try:
        batches = val_batches(cfg, args.num_images or 10)
    except ValueError as error:
        raise SystemExit(f"get_energy: {error}; give an image with --data, or --shape") from error
    except FileNotFoundError as error:
        raise SystemExit(
            f"get_energy: the validation set of {args.config} is not there ({error}); give an "
            "image with --data, or --shape H W for noise"
        ) from error
    return batches, f"validation set of {Path(args.config).stem}"


def run(args: argparse.Namespace) -> EnergyReport:
    """Measure what the arguments ask for."""
    try:
        conventions = Conventions(
            mac_pj=args.mac_pj,
            ac_pj=args.ac_pj,
            source=Conventions.source
            if (args.mac_pj, args.ac_pj) == (Conventions.mac_pj, Conventions.ac_pj)
            else "given by the user",
            image_layer=args.image_layer,
            borders=args.borders,
        )
    except ValueError as error:
        raise SystemExit(f"get_energy: {error}") from error
    cfg = read_config_file("get_energy", args.config, args.cfg_options)
    use_scope(cfg)
    with misfits_in_words("get_energy", cfg):
        batches, data = choose_images(args, cfg)
        torch.manual_seed(0)
        model = build_model(cfg, args.checkpoint, args.device)
        if args.checkpoint is None:
            estimate_norms(model, batches)
            data += "; RANDOM WEIGHTS, statistics of norms from the same images"
        return measure(model, batches, conventions, data, progress=len(batches) > 1)


def make_folder(config: str) -> Path:
    """Make a folder for this run alone, named after the time as mmengine names those of its runs.

    Of runs in the same second, whichever comes later has a number behind it.
    """
    name = time.strftime("%Y%m%d_%H%M%S")
    for suffix in itertools.chain([""], (f"_{i}" for i in itertools.count(2))):
        folder = Path("work_dirs/energy") / Path(config).stem / (name + suffix)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    if args.checkpoint and not Path(args.checkpoint).is_file():
        raise SystemExit(f"get_energy: no file {args.checkpoint}")
    check_device("get_energy", args.device)
    if args.out and args.out.exists() and not args.out.is_dir():
        raise SystemExit(f"get_energy: --out: {args.out} is a file, not a folder")
    with checkpoints_from_outside():
        report = run(args)
    print(f"\n{format_report(report, layers=not args.brief)}\n")
    out = args.out or make_folder(args.config)
    for file in (*report.save(out), *draw_report(report, out)):
        print(file)


if __name__ == "__main__":
    main()
