"""What the arguments of Meta-SpikeFormer must be, whatever a config file gives."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from mmspike.archs import META_SPIKEFORMER, META_SPIKEFORMER_DEPTHS, Arch
from mmspike.layers.arguments import are_counts, check_norm, is_count, refuse_unless
from mmspike.neurons import neuron_takes

_NAME = "MetaSpikeFormer"


def check_arguments(
    arch: Any,
    in_channels: Any,
    out_indices: Any,
    frozen_stages: Any,
    drop_path_rate: Any,
    norm_cfg: Any,
) -> None:
    """Check types and ranges, see :class:`mmspike.MetaSpikeFormer`; named sizes are not looked up.

    Raises:
        ValueError: At the first that cannot be right; it names argument and expectation.
    """
    if isinstance(arch, dict):
        dims, heads = arch.get("embed_dims"), arch.get("num_heads")
        if dims is not None:
            what = "of widths of at least 1 (embed_dims)"
            refuse_unless(are_counts(dims), _NAME, "arch", what, arch)
        if heads is not None:
            refuse_unless(is_count(heads), _NAME, "arch", "of at least 1 head (num_heads)", arch)
    refuse_unless(is_count(in_channels), _NAME, "in_channels", "at least 1", in_channels)
    if out_indices is not None:
        ok = are_counts(out_indices, 0) and max(out_indices) <= 4
        expected = "some of 0 (the stem) to 4, such as (1, 2, 3, 4)"
        refuse_unless(ok, _NAME, "out_indices", expected, out_indices)
    ok = is_count(frozen_stages, -1) and frozen_stages <= 4
    refuse_unless(ok, _NAME, "frozen_stages", "a number from -1 (none) to 4", frozen_stages)
    ok = isinstance(drop_path_rate, Real) and 0 <= float(drop_path_rate) < 1
    refuse_unless(ok, _NAME, "drop_path_rate", "a number in [0, 1)", drop_path_rate)
    check_norm(_NAME, norm_cfg, running=True)


def check(name: str, value: Any, ok: bool, expected: str) -> Any:
    """Give ``value`` back, or refuse it by the argument's name.

    Raises:
        ValueError: If it is not ``ok``.
    """
    if not ok:
        raise ValueError(f"MetaSpikeFormer: {name} must be {expected}, got {value!r}")
    return value


def warn_of_strides(indices: tuple[int, ...], strides: list[int]) -> None:
    """Warn that an ordinary neck would take the maps for others."""
    scope = DefaultScope.get_current_instance()
    if scope is not None and scope.scope_name == "mmseg":  # whose heads resize what they read
        return
    print_log(
        f"MetaSpikeFormer: out_indices={indices} give maps of strides {strides}. An ordinary neck, "
        "such as mmdet's FPN, takes each for twice the stride of the one before, and its levels do "
        "not lie where the anchors of RetinaNet, Faster R-CNN or Cascade R-CNN are; "
        "out_indices=(1, 2, 4) gives strides 4, 8, 16",
        "current",
        level=logging.WARNING,
    )


def read_attn_neuron(
    change: dict[str, Any] | None, neuron_cfg: dict[str, Any] | None
) -> dict[str, Any]:
    """Settings in which the neuron after the attention differs from the others."""
    if change is None:
        return {"v_threshold": 0.5} if neuron_takes(neuron_cfg, "v_threshold") else {}
    of = change if "type" in change else neuron_cfg
    for name in set(change) - {"type"}:
        ok = neuron_takes(of, name)
        check("attn_neuron_cfg", change, ok, f"what the neuron takes, which has no {name!r}")
    return change


def read_arch(arch: str | dict[str, Any], stages: int) -> Arch:
    """The size that ``arch`` names."""
    keys = {"embed_dims", "num_heads"}
    if isinstance(arch, dict) and keys <= set(arch) <= {*keys, "depths"}:
        read: Any = Arch(**{**arch, "embed_dims": tuple(arch["embed_dims"])})
    else:
        read = META_SPIKEFORMER.get(arch) if isinstance(arch, str) else None
    expected = (
        f"one of {sorted(META_SPIKEFORMER)} or dict(embed_dims=[4 widths], num_heads=..., "
        f"depths={META_SPIKEFORMER_DEPTHS})"
    )
    ok = read is not None and len(read.embed_dims) == 4 and len(read.depths) == stages
    check("arch", arch, ok, expected)
    check(
        "arch", arch, read.embed_dims[0] % 2 == 0, "of an even first width, which the stem halves"
    )
    return read


def read_with_cp(with_cp: bool | Sequence[int], stages: int) -> frozenset[int]:
    """The stages whose blocks are checkpointed."""
    if isinstance(with_cp, bool):
        return frozenset(range(stages) if with_cp else ())
    ok = isinstance(with_cp, Sequence) and all(type(i) is int and 0 <= i < stages for i in with_cp)
    check("with_cp", with_cp, ok, "a bool, or a sequence of stages from 0 (the stem) to 4")
    return frozenset(with_cp)


def read_init_pixels(size: Sequence[int] | None, stride: int) -> int | None:
    """Pixels of the maps with attention, of images of ``size``, ``(height, width)``."""
    if size is None:
        return None
    sizes = size if isinstance(size, list | tuple) else ()
    ok = len(sizes) == 2 and all(type(n) is int and n > 0 for n in sizes)
    check("attn_init_size", size, ok, "None or (height, width)")
    return math.prod(math.ceil(n / stride) for n in size)


def read_attn_scale(scale: Any) -> float | None:
    """The factor of the attention; ``None`` if it averages."""
    ok = scale is None or (isinstance(scale, Real) and 0 < float(scale) < math.inf)
    return check("attn_scale", scale, ok, "None (an average), or a number above 0")
