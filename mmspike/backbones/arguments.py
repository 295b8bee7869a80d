"""What the arguments of the backbones must be, whatever a config file gives."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from mmspike.archs import META_SPIKEFORMER_DEPTHS, Arch
from mmspike.layers.arguments import are_counts, check_norm, is_count, refuse_unless
from mmspike.layers.attention import ATTN_NEURON
from mmspike.neurons import neuron_takes
from mmspike.neurons.arguments import check_config


def check_arguments(
    owner: str,
    arch: Any,
    time_steps: Any,
    in_channels: Any,
    out_indices: Any,
    frozen_stages: Any,
    drop_path_rate: Any,
    norm_cfg: Any,
) -> None:
    """Check types and ranges; named sizes are not looked up.

    The arguments are those of :class:`mmspike.MetaSpikeFormer`, after the name of their ``owner``.

    Raises:
        ValueError: At the first that cannot be right; it names argument and expectation.
    """
    if isinstance(arch, dict):
        dims, heads = arch.get("embed_dims"), arch.get("num_heads")
        if dims is not None:
            what = "of widths of at least 1 (embed_dims)"
            refuse_unless(are_counts(dims), owner, "arch", what, arch)
        if heads is not None:
            refuse_unless(is_count(heads), owner, "arch", "of at least 1 head (num_heads)", arch)
    ok = type(time_steps) is int and time_steps >= 1
    refuse_unless(ok, owner, "time_steps", "a whole number of at least 1", time_steps)
    refuse_unless(is_count(in_channels), owner, "in_channels", "at least 1", in_channels)
    if out_indices is not None:
        ok = are_counts(out_indices, 0) and max(out_indices) <= 4
        expected = "some of 0 (the stem) to 4, such as (1, 2, 3, 4)"
        refuse_unless(ok, owner, "out_indices", expected, out_indices)
    ok = is_count(frozen_stages, -1) and frozen_stages <= 4
    refuse_unless(ok, owner, "frozen_stages", "a number from -1 (none) to 4", frozen_stages)
    ok = isinstance(drop_path_rate, Real) and 0 <= float(drop_path_rate) < 1
    refuse_unless(ok, owner, "drop_path_rate", "a number in [0, 1)", drop_path_rate)
    check_norm(owner, norm_cfg, running=True)


def warn_of_strides(owner: str, indices: tuple[int, ...], strides: list[int]) -> None:
    """Warn that an ordinary neck would take the maps for others."""
    scope = DefaultScope.get_current_instance()
    if scope is not None and scope.scope_name == "mmseg":  # whose heads resize what they read
        return
    print_log(
        f"{owner}: out_indices={indices} give maps of strides {strides}. An ordinary neck, "
        "such as mmdet's FPN, takes each for twice the stride of the one before, and its levels do "
        "not lie where the anchors of RetinaNet, Faster R-CNN or Cascade R-CNN are; "
        "out_indices=(1, 2, 4) gives strides 4, 8, 16",
        "current",
        level=logging.WARNING,
    )


def read_attn_neuron(
    owner: str, change: dict[str, Any] | None, neuron_cfg: dict[str, Any] | None
) -> dict[str, Any]:
    """Settings in which the neuron after the attention differs from the others."""
    check_config(f"{owner}: attn_neuron_cfg", change)
    if change is None:
        return {k: v for k, v in ATTN_NEURON.items() if neuron_takes(neuron_cfg, k)}
    of = change if "type" in change else neuron_cfg
    for name in set(change) - {"type"}:
        ok = neuron_takes(of, name)
        expected = f"what the neuron takes, which has no {name!r}"
        refuse_unless(ok, owner, "attn_neuron_cfg", expected, change)
    return change


def read_arch(owner: str, arch: str | dict[str, Any], named: Mapping[str, Arch]) -> Arch:
    """The size that ``arch`` names, or is."""
    keys = {"embed_dims", "num_heads"}
    if isinstance(arch, dict) and keys <= set(arch) <= {*keys, "depths"}:
        read: Any = Arch(**{**arch, "embed_dims": tuple(arch["embed_dims"])})
    else:
        read = named.get(arch) if isinstance(arch, str) else None
    depths = META_SPIKEFORMER_DEPTHS
    expected = f"one of {sorted(named)} or dict(embed_dims=[4 widths], num_heads=..., {depths=})"
    ok = read is not None and len(read.embed_dims) == 4 and len(read.depths) == len(depths)
    refuse_unless(ok, owner, "arch", expected, arch)
    expected = "of an even first width, which the stem halves"
    refuse_unless(read.embed_dims[0] % 2 == 0, owner, "arch", expected, arch)
    return read


def read_with_cp(owner: str, with_cp: bool | Sequence[int], stages: int) -> frozenset[int]:
    """The stages whose blocks are checkpointed."""
    if isinstance(with_cp, bool):
        return frozenset(range(stages) if with_cp else ())
    ok = isinstance(with_cp, Sequence) and all(type(i) is int and 0 <= i < stages for i in with_cp)
    expected = "a bool, or a sequence of stages from 0 (the stem) to 4"
    refuse_unless(ok, owner, "with_cp", expected, with_cp)
    return frozenset(with_cp)


def read_init_pixels(owner: str, size: Sequence[int] | None, stride: int) -> int | None:
    """Pixels of the maps with attention, of images of ``size``, ``(height, width)``."""
    if size is None:
        return None
    sizes = size if isinstance(size, list | tuple) else ()
    ok = len(sizes) == 2 and all(type(n) is int and n > 0 for n in sizes)
    refuse_unless(ok, owner, "attn_init_size", "None or (height, width)", size)
    return math.prod(math.ceil(n / stride) for n in size)


def read_attn_scale(owner: str, scale: Any) -> float | None:
    """The factor of the attention; ``None`` if it averages."""
    ok = scale is None or (isinstance(scale, Real) and 0 < float(scale) < math.inf)
    refuse_unless(ok, owner, "attn_scale", "None (an average), or a number above 0", scale)
    return scale
