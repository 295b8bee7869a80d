"""Turn any checkpoint with a Meta-SpikeFormer or E-SpikeFormer into a slim one, or back."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import mmspike
from mmspike.backbones import CLASSIFIERS
from mmspike.backbones.recorded import recorded_neuron, recorded_options
from mmspike.backbones.spikeformer import SpikeFormer
from mmspike.checkpoints import CheckpointError, read_checkpoint
from mmspike.checkpoints.loading import load_tensors
from mmspike.checkpoints.record import RECORD, make_record, model_config
from mmspike.checkpoints.report import with_article
from mmspike.checkpoints.sources import Source, arch_of, depths_of, shorten, sort_checkpoint
from mmspike.checkpoints.upstream import to_upstream_state_dict
from mmspike.neurons.known import short_name


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", metavar="IN", help="checkpoint file or http(s) address")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write: .pth or .safetensors")
    parser.add_argument(
        "--to-upstream",
        action="store_true",
        help="write the published names, with the classification heads if IN has them",
    )
    parser.add_argument(
        "--prefix", default="", help="beginning of the names of one of several networks"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    return parser.parse_args()


def convert(
    source: str, to_upstream: bool, prefix: str = ""
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a checkpoint, and give tensors and metadata of the one to write."""
    file = read_checkpoint(source)
    sorted_ = sort_checkpoint(file, prefix)
    widths = arch_of(sorted_.backbone)
    if widths is None:
        raise CheckpointError(f"checkpoint {file.path}: holds a part of the backbone only")
    size = {"embed_dims": widths, **depths_of(sorted_.backbone)}
    trained = model_config(file.content, file.metadata)
    try:
        if to_upstream:
            refuse_learnt(sorted_, trained)
        model = build(sorted_, size, trained)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {file.path}: {error}") from error
    report = load_tensors(model, file, prefix=prefix)  # or say what is wrong
    kept = sorted_.heads if to_upstream else {}
    print(replace(report, ignored=[name for name in report.ignored if name not in kept]))
    archs = sorted_.family.archs
    names = [name for name, arch in archs.items() if size == {"embed_dims": list(arch.embed_dims)}]
    metadata = {
        "family": sorted_.family.name,
        "arch": names[0] if names else json.dumps(size),
        "source": file.path.name,
        "source_format": sorted_.format,
        "source_sha256": file.sha256,
        "mmspike_version": mmspike.__version__,
    }
    with_head = to_upstream and bool(sorted_.heads)
    record = make_record(trained, with_head)
    if record:
        metadata[RECORD] = record
    tensors = sorted_.backbone
    if to_upstream:
        try:
            tensors = to_upstream_state_dict(tensors) | kept
        except KeyError as error:
            raise CheckpointError(f"checkpoint {file.path}: {error.args[0]}") from error
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata


def build(source: Source, size: Mapping[str, Any], trained: Mapping[str, Any]) -> SpikeFormer:
    """Build the backbone that a checkpoint holds, with its neurons where they learnt something."""
    stem = source.backbone.get("stages.0.downsample.layer.weight", torch.empty(0, 3))
    kind = CLASSIFIERS[source.family.name].backbone_class
    neurons = {}
    if any("neuron." in name for name in source.backbone):
        options = recorded_options(trained, kind)
        neurons = {k: v for k, v in options.items() if k.endswith("neuron_cfg")}
    arch = {**size, "num_heads": 1}  # any number: it is not in the weights
    return kind(arch, in_channels=stem.size(1), **neurons)


def refuse_learnt(source: Source, trained: Mapping[str, Any]) -> None:
    """Refuse what neurons learnt, for which the published code has no place."""
    learnt = [name for name in (*source.backbone, *source.heads) if "neuron." in name]
    if learnt:
        cfg = (recorded_neuron(trained, part) for part in ("backbone", "head"))
        kinds = dict.fromkeys(short_name(c["type"]) for c in cfg if c)
        raise CheckpointError(
            f"its neurons ({', '.join(kinds) or 'of a type that it does not tell'}) learnt "
            f"{shorten(learnt)}, and the published code has no such neurons: convert it without "
            "--to-upstream"
        )


def write(out: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], key: str) -> None:
    """Write a checkpoint whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    try:
        if out.suffix == ".safetensors":
            save_file(tensors, partial, metadata=metadata)
        else:
            content: dict[str, Any] = {key: tensors, "meta": metadata}
            torch.save(content, partial)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def main() -> None:
    """Convert one file."""
    args = parse_args()
    if args.out.exists() and not args.overwrite:
        raise SystemExit(f"{args.out} is there already; --overwrite replaces it")
    try:
        tensors, metadata = convert(args.source, args.to_upstream, args.prefix)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    write(args.out, tensors, metadata, "model" if args.to_upstream else "state_dict")
    size = args.out.stat().st_size / 2**20
    print(
        f"wrote {args.out}: {len(tensors)} tensors, {size:.1f} MiB, arch {metadata['arch']}, "
        f"from {with_article(metadata['source_format'])}"
    )


if __name__ == "__main__":
    main()
