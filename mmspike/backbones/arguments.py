"""What the arguments of Meta-SpikeFormer must be, whatever a config file gives."""

from __future__ import annotations

from numbers import Real
from typing import Any

from mmspike.layers.arguments import are_counts, check_norm, is_count, refuse_unless

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
    ok = isinstance(drop_path_rate, Real) and 0 <= drop_path_rate < 1
    refuse_unless(ok, _NAME, "drop_path_rate", "a number in [0, 1)", drop_path_rate)
    check_norm(_NAME, norm_cfg, running=True)
