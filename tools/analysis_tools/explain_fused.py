"""Tell, layer by layer, what of a model runs fused, and why the rest does not.

Runs one image of noise. What is fused depends on the device, the types, the mode and the model's
form: give --train for the training path, --deploy for the folded model.
"""

from __future__ import annotations

import argparse

import torch
from mmengine.config import DictAction

import mmspike.registry  # noqa: F401  makes "mmspike::" known in configs
from mmspike.deploy import switch_to_deploy
from mmspike.engine.command_line import (
    check_device,
    checkpoints_from_outside,
    read_config_file,
)
from mmspike.engine.inputs import build_model, estimate_norms, noise_batch
from mmspike.engine.misfits import misfits_in_words
from mmspike.fused import explain


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; default: random weights")
    parser.add_argument(
        "--shape", nargs=2, type=int, default=[128, 128], metavar=("H", "W"), help="(128 128)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--train", action="store_true", help="in training mode, with gradients")
    form.add_argument("--deploy", action="store_true", help="folded for inference")
    parser.add_argument("--brief", action="store_true", help="print the last line alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    args = parser.parse_args()
    if min(args.shape) < 1:
        parser.error(f"--shape must be two positive numbers, got {args.shape}")
    return args


def main() -> None:
    """Explain."""
    args = parse_args()
    check_device("explain_fused", args.device)
    cfg = read_config_file("explain_fused", args.config, args.cfg_options)
    torch.manual_seed(0)
    with checkpoints_from_outside(), misfits_in_words("explain_fused", cfg):
        model = build_model(cfg, args.checkpoint, args.device)
        batch = noise_batch(cfg, tuple(args.shape))
        if args.checkpoint is None:
            estimate_norms(model, [batch])
        if args.deploy:
            switch_to_deploy(model)
        with torch.set_grad_enabled(args.train):
            report = explain(model.train(args.train), batch, lambda m, b: m.test_step(b))
    print(report if args.brief else report.table())


if __name__ == "__main__":
    main()
