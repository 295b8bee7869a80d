"""Hooks that every training gets, whatever its config."""

from __future__ import annotations

from mmengine.config import Config

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
    given = list(cfg.get("custom_hooks") or [])
    names = {hook["type"] if isinstance(hook, dict) else type(hook).__name__ for hook in given}
    cfg.custom_hooks = given + [{"type": t} for t in DEFAULT_HOOKS if t not in names]
    if cfg.get("default_hooks") is None:
        cfg.default_hooks = {}
    checkpoint = cfg.default_hooks.setdefault(
        "checkpoint", {"type": "CheckpointHook", "interval": 1}
    )
    plain = ("CheckpointHook", "mmengine.CheckpointHook")
    if isinstance(checkpoint, dict) and checkpoint.get("type") in plain:
        cfg.default_hooks.checkpoint = {**checkpoint, "type": CHECKPOINT_HOOK}
