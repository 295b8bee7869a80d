"""The command line that the tools share, with the options that mmdet and mmseg have."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.config.utils import ConfigParsingError

import mmspike.registry  # noqa: F401  makes "mmspike::" known in configs
from mmspike.checkpoints import CheckpointError, read_safely_in_mmengine
from mmspike.engine.bases import wrong_base
from mmspike.engine.configs import merge_options
from mmspike.installed import MissingPackageError, require_mmpretrain, require_operators
from mmspike.layers.forms import FormError


def make_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments that training and testing have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--work-dir", help="folder for logs and results; default: work_dirs/<name of the config>"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="settings that replace the config's, such as train_dataloader.batch_size=4 "
        'model.backbone.time_steps=4 val_evaluator.metric="[bbox]"',
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started the processes of a distributed run",
    )
    parser.add_argument(
        "--no-preflight",
        action="store_true",
        help="do not compare data, classes, heads and schedule before the first step",
    )
    # torch's launchers pass either spelling
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


@contextmanager
def checkpoints_from_outside() -> Iterator[None]:
    """Let mmengine load files without running them; end with a line when one is refused."""
    read_safely_in_mmengine()
    try:
        yield
    except (CheckpointError, FormError) as error:
        raise SystemExit(str(error)) from error


def read_config(args: argparse.Namespace) -> Config:
    """Read the config that the arguments name, and apply them to it.

    Args:
        args: What :func:`make_parser` parsed.

    Returns:
        The config, with ``launcher`` and ``work_dir`` set.

    Raises:
        SystemExit: If there is no such config, or what its model needs is not installed.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = _read(args.config)
    check_operators(cfg)
    cfg.launcher = args.launcher
    apply_options(cfg, args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    return cfg


def _read(path: str | Path, tool: str = "") -> Config:
    """Read a config, or end with a line if it, or what it inherits, is not there."""
    try:
        return Config.fromfile(path)
    except ConfigParsingError as error:  # of a pure-Python config
        raise SystemExit(f"{tool}{path}: {error}") from error
    except (OSError, ValueError, AssertionError, ImportError) as error:
        reason = wrong_base(path)
        if reason is not None:
            raise SystemExit(f"{tool}{reason}") from error
        if isinstance(error, OSError):
            raise SystemExit(f"{tool}{path} is no config: {error}") from error
        raise


def apply_options(cfg: Config, options: dict[str, Any] | None) -> None:
    """Apply ``--cfg-options`` to a config, or end with a line that says why not."""
    try:
        merge_options(cfg, options or {})
    except ValueError as error:
        raise SystemExit(str(error)) from error


def check_operators(cfg: Config) -> None:
    """End with a line if what the model of a config needs is not installed.

    A detector needs mmcv's compiled operators, a classifier mmpretrain.

    Raises:
        SystemExit: If so; it names the command that mends it.
    """
    model = cfg.get("model")
    kind = str(model.get("type")) if isinstance(model, dict) else ""
    scope = cfg.get("default_scope")
    try:
        if kind.startswith(("mmspike.det.", "mmdet.")) or scope == "mmdet":
            require_operators(f"{cfg.filename}, a detector's config,")
        if kind.startswith(("mmspike.cls.", "mmpretrain.")) or scope == "mmpretrain":
            require_mmpretrain()
    except MissingPackageError as error:
        raise SystemExit(str(error)) from error


def parse_options(options: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` settings as ``--cfg-options`` does."""
    pairs = (option.split("=", maxsplit=1) for option in options)
    return {key: DictAction._parse_iterable(value) for key, value in pairs}


def read_config_file(tool: str, path: str | Path, options: dict | None = None) -> Config:
    """Read a config for a tool that looks into a model.

    Raises:
        SystemExit: If there is no such file, it is no config, or its model needs what is not there.
    """
    if not Path(path).is_file():
        raise SystemExit(f"{tool}: no file {path}")
    cfg = _read(path, f"{tool}: ")
    apply_options(cfg, options)
    if "model" not in cfg:
        raise SystemExit(f"{tool}: {path} has no model")
    check_operators(cfg)
    return cfg


def check_device(tool: str, device: str) -> None:
    """End with a line if torch does not have the device.

    Raises:
        SystemExit: If it does not.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SystemExit(f"{tool}: --device {device}: {str(error).splitlines()[0]}") from error
