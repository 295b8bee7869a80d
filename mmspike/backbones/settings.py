"""What the configs of spiking transformers say beside weights and neurons.

The configs may come from files of weights: nothing in them is looked up but sizes by their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmspike.archs import PUBLISHED_HEADS, PUBLISHED_NAMES, Arch
from mmspike.neurons.known import is_plain


def settings_of(cls: type, named: Mapping[str, Arch], cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a backbone's config, see :class:`mmspike.neurons.protocols.Configured`.

    Args:
        cls: The backbone, whose defaults hold where the config says nothing.
        named: Its named sizes.
        cfg: Its config, also one of the published code's, with ``T`` and ``embed_dim``.

    Returns:
        ``time_steps``, ``num_heads`` and ``attn_scale``, as far as they are told in plain values.

    Examples:
        >>> from mmspike.archs import META_SPIKEFORMER
        >>> from mmspike.backbones import MetaSpikeFormer
        >>> settings = settings_of(MetaSpikeFormer, META_SPIKEFORMER, {"arch": "31M", "T": 4})
        >>> [settings[name] for name in ("time_steps", "num_heads", "attn_scale")]
        [4, 8, 0.125]
    """
    defaults = {p.name: p.default for p in inspect.signature(cls).parameters.values()}
    given = {**defaults, **{PUBLISHED_NAMES.get(k, k): v for k, v in cfg.items()}}
    settings = {k: given[k] for k in ("time_steps", "attn_scale") if is_plain(given.get(k, cls))}
    if "embed_dim" in cfg:
        heads = given.get("num_heads", PUBLISHED_HEADS)
    else:
        heads = _heads(given.get("arch"), named)
    if isinstance(heads, int):
        settings["num_heads"] = heads
    return settings


def _heads(arch: Any, named: Mapping[str, Arch]) -> Any:
    if isinstance(arch, str) and arch in named:
        return named[arch].num_heads
    return arch.get("num_heads") if isinstance(arch, Mapping) else None
