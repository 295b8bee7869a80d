"""The published code's name and arguments of the backbone, for configs that were written for it.

They build what this project has in their place, and log its config once. A bare name is looked up
in mmengine's own registry, last of all: one that a host or a fork of it has comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope

from mmspike.archs import META_SPIKEFORMER, PUBLISHED_HEADS, PUBLISHED_NAMES, Arch
from mmspike.registry import MODELS

NAME = "Spiking_vit_MetaFormer"
"""The published backbone's name, in detectors and segmentors."""
_WITHOUT_EFFECT = ("img_size_h", "img_size_w", "patch_size", "num_classes")
"""Arguments that the published backbone takes and does not use."""
_FIXED: dict[str, Any] = {
    "depths": 8,  # blocks with attention
    "mlp_ratios": 4,
    "sr_ratios": 1,
    "qkv_bias": False,
    "qk_scale": None,
    "drop_rate": 0.0,
    "attn_drop_rate": 0.0,
    "drop_path_rate": 0.0,  # accepted there, and not applied
    "decode_mode": "snn",
    "pretrained": None,
}
"""Arguments that have one value in all published models."""
_EMBED_DIM = "the widths of the four stages, such as [128, 256, 512, 640]"
_logged: set[str] = set()


@MODELS.register_module(name=NAME)
def build_published_backbone(**published: Any) -> Any:
    """Build a ``MetaSpikeFormer`` from the published backbone's arguments.

    Args:
        **published: See :func:`modern_form`.

    Raises:
        TypeError: If there is no such argument, or no ``embed_dim``.
        ValueError: If an argument has a value that no published model has.
    """
    if "embed_dim" not in published:
        raise TypeError(f"{NAME} needs embed_dim, {_EMBED_DIM}; got {sorted(published)}")
    config = modern_form(**published)
    text = ", ".join(f"{key}={value!r}" for key, value in config.items())
    if text not in _logged:
        _logged.add(text)
        print_log(f"{NAME} is the published name of backbone=dict({text})", "current")
    return MODELS.build(config)


def modern_form(
    embed_dim: Sequence[int],
    num_heads: int = PUBLISHED_HEADS,
    T: int = 1,
    **others: Any,
) -> dict[str, Any]:
    """Translate the published backbone's arguments into a config of ``MetaSpikeFormer``.

    As in the published code, a segmentor gets the maps of the stem and of the first, second and
    last stage, averaged over time, and a detector the sequences of the four stages.

    Args:
        embed_dim: Widths of the four stages.
        num_heads: Attention heads.
        T: Time steps.
        **others: Other published arguments, which are checked, and arguments of
            ``MetaSpikeFormer`` such as ``init_cfg``, which are kept.

    Raises:
        TypeError: If ``embed_dim`` is no sequence.
        ValueError: If a published argument has a value that no published model has.
    """
    if not isinstance(embed_dim, Sequence) or isinstance(embed_dim, str):
        raise TypeError(f"{NAME}: embed_dim must be {_EMBED_DIM}, got {embed_dim!r}")
    for name, value in _FIXED.items():
        if others.get(name, value) != value:
            raise ValueError(
                f"{NAME}: {name} must be {value!r}, as in the published models, got "
                f"{others[name]!r}; mmspike.MetaSpikeFormer says what else there is"
            )
    kept = {k: v for k, v in others.items() if k not in (*_FIXED, *_WITHOUT_EFFECT)}
    size: dict[str, Any] = {"embed_dims": list(embed_dim), "num_heads": num_heads}
    named = [name for name, arch in META_SPIKEFORMER.items() if size == _size_of(arch)]
    config: dict[str, Any] = {
        "type": "mmspike.MetaSpikeFormer",
        "arch": named[0] if named else size,
        PUBLISHED_NAMES["T"]: T,
    }
    scope = DefaultScope.get_current_instance()
    if scope is not None and scope.scope_name == "mmseg":
        config |= {"out_indices": (0, 1, 2, 4), "decode": "mean"}
    return config | kept


def _size_of(arch: Arch) -> dict[str, Any]:
    return {"embed_dims": list(arch.embed_dims), "num_heads": arch.num_heads}


if NAME not in MMENGINE_MODELS.module_dict:
    MMENGINE_MODELS.register_module(name=NAME, module=build_published_backbone)
