"""Train a detector, segmentor or classifier from a config, mmdet's and the like."""

from __future__ import annotations

import argparse

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmspike.engine.command_line import checkpoints_from_outside, make_parser, read_config
from mmspike.engine.configs import type_name
from mmspike.engine.default_hooks import add_default_hooks
from mmspike.engine.distributed import start_processes
from mmspike.engine.errors import errors_in_words
from mmspike.engine.latest_checkpoint import resume_from_latest
from mmspike.engine.preflight import preflight
from mmspike.engine.weights import leave_out_absent, unwrap
from mmspike.layers.init_log import use_init_log
from mmspike.quiet import is_worth_reading


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from this checkpoint, or from the latest in the work dir if none is named",
    )
    parser.add_argument("--amp", action="store_true", help="train in mixed precision")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the ratio of the batch size to auto_scale_lr's in the "
        "config",
    )
    return parser.parse_args()


def apply_args(cfg: Config, args: argparse.Namespace) -> None:
    """Write the options of training into the config.

    Raises:
        SystemExit: If mixed precision is asked for without a GPU, or ``--auto-scale-lr`` of a
            config that does not say from what.
    """
    if args.amp:
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
    if type_name(cfg.get("optim_wrapper")) == "AmpOptimWrapper" and get_device() == "cpu":
        asked = "--amp" if args.amp else f"{cfg.filename}: optim_wrapper.type=AmpOptimWrapper"
        raise SystemExit(
            f"{asked}: mmengine trains in mixed precision on a GPU alone, and torch finds none "
            "here; leave it out" + ("" if args.amp else " (optim_wrapper.type=OptimWrapper)")
        )
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise SystemExit(
                f"--auto-scale-lr: {cfg.filename} has no auto_scale_lr.base_batch_size"
            )
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume


def main() -> None:
    """Train."""
    # Surrogate gradients of silent neurons are denormal numbers, which CPUs compute with slowly.
    torch.set_flush_denormal(True)
    args = parse_args()
    cfg = read_config(args)
    apply_args(cfg, args)
    add_default_hooks(cfg)
    with checkpoints_from_outside(), errors_in_words():
        resume_from_latest(cfg)
    if not args.no_preflight:
        preflight(cfg, "train")
    with checkpoints_from_outside(), errors_in_words():
        start_processes(cfg)
        runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
        runner.logger.addFilter(is_worth_reading)
        model = unwrap(runner.model)
        if cfg.get("resume") and cfg.get("load_from"):
            leave_out_absent(model, cfg.load_from)
        use_init_log(model)
        runner.train()


if __name__ == "__main__":
    main()
