"""Hooks that every training gets, whatever its config."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import DefaultScope

from mmspike.engine.configs import find_class
from mmspike.registry import HOOKS

DEFAULT_HOOKS: tuple[str, ...] = (
    "mmspike.FitHook",
    "mmspike.FiniteHook",
    "mmspike.ExactResumeHook",
    "mmspike.FusedReportHook",
)
"""Types of hooks, built without arguments where a config does not name them itself."""
CHECKPOINT_HOOK = "mmspike.AtomicCheckpointHook"
"""What writes checkpoints in the place of mmengine's own hook."""


def add_default_hooks(cfg: Config) -> None:
    """Add to a config the hooks of :data:`DEFAULT_HOOKS` that it lacks.

    mmengine's ``CheckpointHook``, by that name or left out, becomes :data:`CHECKPOINT_HOOK`, with
    the same arguments. Hooks of other types, and ``checkpoint=None``, stay as they are.

    Args:
        cfg: Config of a training; changed in place.
    """
    _name_scopes(cfg)
    custom = list(cfg.get("custom_hooks") or [])
    given = {_name(hook) for hook in [*custom, *(cfg.get("default_hooks") or {}).values()]}
    missing = [name for name in DEFAULT_HOOKS if name.rpartition(".")[2] not in given]
    cfg.custom_hooks = custom + [{"type": name} for name in missing]
    if cfg.get("default_hooks") is None:
        cfg.default_hooks = {}
    checkpoint = cfg.default_hooks.setdefault(
        "checkpoint", {"type": "CheckpointHook", "interval": 1}
    )
    plain = ("CheckpointHook", "mmengine.CheckpointHook", CheckpointHook)
    if isinstance(checkpoint, dict) and checkpoint.get("type") in plain:
        cfg.default_hooks.checkpoint = {**checkpoint, "type": CHECKPOINT_HOOK}


def _name_scopes(cfg: Config) -> None:
    """Write the scope in front of hooks of ours that are named without; a host's come first."""
    HOOKS.import_from_location()
    hooks = [*(cfg.get("custom_hooks") or []), *(cfg.get("default_hooks") or {}).values()]
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        for hook in hooks:
            kind = hook.get("type") if isinstance(hook, dict) else None
            if kind in HOOKS.module_dict and find_class(MMENGINE_HOOKS, hook) is None:
                hook["type"] = f"mmspike.{kind}"


def _name(hook: Any) -> str:
    """Name of a hook's class, without the scope; its type may be a name or a class."""
    kind = hook.get("type") if isinstance(hook, dict) else type(hook)
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def add_test_hooks(cfg: Config) -> None:
    """Add to a config the hook that says what runs fused; changed in place."""
    _name_scopes(cfg)
    custom = list(cfg.get("custom_hooks") or [])
    if "FusedReportHook" not in map(_name, custom):
        cfg.custom_hooks = [*custom, {"type": "mmspike.FusedReportHook"}]
