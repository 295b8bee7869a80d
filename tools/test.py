"""Evaluate a detector, segmentor or classifier from a config, mmdet's and the like."""

from __future__ import annotations

import argparse

from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmspike.engine.command_line import checkpoints_from_outside, make_parser, read_config
from mmspike.engine.default_hooks import add_test_hooks
from mmspike.engine.distributed import start_processes
from mmspike.engine.preflight import preflight
from mmspike.engine.testing import (
    augment_at_test_time,
    dump_predictions,
    show_predictions,
)
from mmspike.engine.weights import keep_runner_from_loading, load_for_test
from mmspike.quiet import is_worth_reading


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", help="write predictions: a .pkl file, or a folder (mmseg)")
    parser.add_argument("--show", action="store_true", help="show predictions in a window")
    parser.add_argument("--show-dir", help="write pictures of predictions to this folder")
    parser.add_argument("--wait-time", type=float, default=2.0, help="seconds a window stays")
    parser.add_argument("--tta", action="store_true", help="augment at test time")
    parser.add_argument(
        "--deploy",
        action="store_true",
        help="fold the model for inference first: faster, outputs equal to rounding, which can "
        "move a spike that lies on its threshold",
    )
    parser.add_argument(
        "--unroll",
        action="store_true",
        help="run integer neurons as binary frames first: outputs equal to rounding, which can "
        "move an integer that lies on a tie",
    )
    return parser.parse_args()


def main() -> None:
    """Evaluate."""
    args = parse_args()
    if args.deploy and args.unroll:
        raise SystemExit("test: --unroll folds the model, too; give it without --deploy")
    cfg = read_config(args)
    cfg.load_from = args.checkpoint
    if not args.no_preflight:
        preflight(cfg, "test")
    keep_runner_from_loading(cfg)
    add_test_hooks(cfg)
    try:
        if args.show or args.show_dir:
            show_predictions(cfg, args.show, args.show_dir, args.wait_time)
        if args.out:
            dump_predictions(cfg, args.out)
        if args.tta:
            augment_at_test_time(cfg)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    with checkpoints_from_outside():
        start_processes(cfg)
        runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
        runner.logger.addFilter(is_worth_reading)
        # --tta leaves a mask head out
        try:
            load_for_test(
                runner,
                args.checkpoint,
                deploy=args.deploy,
                unrolled=args.unroll,
                allow_unexpected=args.tta,
            )
        except ValueError as error:
            raise SystemExit(f"test: {error}") from error
        runner.test()


if __name__ == "__main__":
    main()
