"""Words about configs, whether their types are names or, as in pure-Python configs, classes."""

from __future__ import annotations

from itertools import count
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope, Registry

_HOSTS = ("mmdet", "mmseg", "mmpretrain")
_numbers = count()


def type_name(cfg: Any) -> str:
    """The bare name of a config's ``type``, without scope or module."""
    kind = cfg.get("type", "") if isinstance(cfg, dict) else ""
    return kind.rsplit(".", 1)[-1] if isinstance(kind, str) else getattr(kind, "__name__", "")


def is_pretrained(init_cfg: Any) -> bool:
    """Whether an ``init_cfg``, or one of several, loads weights from a file."""
    return type_name(init_cfg) in ("Pretrained", "PretrainedInit")


def find_class(registry: Registry, cfg: dict[str, Any]) -> type | None:
    """The class that a config's ``type`` names in the present scope; ``None`` if there is none."""
    kind = cfg.get("type")
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(kind)


def as_list(value: Any) -> list[Any]:
    """A list of what may be one, several or none."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def use_scope(cfg: Config) -> None:
    """Let names in a config be looked up in its ``default_scope``, or in ours if it names none.

    ``None`` is for configs that name classes; each host then looks up its own names by itself.
    """
    scope = cfg.get("default_scope", "mmspike")
    current = DefaultScope.get_current_instance()
    if scope is not None and (current is None or current.scope_name != scope):
        # by a new name: mmengine's init_default_scope warns of every return to a scope
        DefaultScope.get_instance(f"mmspike-{next(_numbers)}", scope_name=scope)


def host_of(cfg: Config) -> str:
    """The host whose model a config is for: ``"mmdet"``, ``"mmseg"``, ``"mmpretrain"`` or ``""``.

    Where ``default_scope`` does not say so, the model's class does.
    """
    scope = cfg.get("default_scope")
    if scope in _HOSTS:
        return scope
    cls = find_class(MODELS, cfg.model)
    modules = [base.__module__.split(".")[0] for base in getattr(cls, "__mro__", ())]
    return next((host for host in _HOSTS if host in modules), "")


def leaf_of(dataset: dict[str, Any]) -> dict[str, Any]:
    """The config of a data set inside its wrappers; of several, the first."""
    while "pipeline" not in dataset and ("dataset" in dataset or "datasets" in dataset):
        dataset = dataset["dataset"] if "dataset" in dataset else dataset["datasets"][0]
    return dataset


def metainfo_of(dataset: dict[str, Any]) -> dict[str, Any]:
    """Classes and palette of a data set, as its config and its class tell, without its files."""
    leaf = leaf_of(dataset)
    cls = find_class(DATASETS, leaf)
    return {**getattr(cls, "METAINFO", {}), **(leaf.get("metainfo") or {})}


_DATA_KEYS = (
    "train_dataloader",
    "val_dataloader",
    "test_dataloader",
    "val_evaluator",
    "test_evaluator",
)


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Let the settings of ``--cfg-options`` replace a config's.

    ``data_root`` moves all data. mmengine reads a config's ``data_root = "data/"`` before it knows
    of settings, so that a new value of the variable alone would reach no data set.

    Args:
        cfg: The config; changed.
        options: Values by their dotted keys.

    Raises:
        ValueError: If ``data_root`` is given, and no path of data sets and evaluators begins with
            the config's, or a key leads into what has no such part.
    """
    options = dict(options)
    if "data_root" in options:
        root = str(options.pop("data_root"))
        old = cfg.get("data_root")
        parts = [cfg[key] for key in _DATA_KEYS if cfg.get(key) is not None]
        if not (old and isinstance(old, str) and _move(parts, old, root, set())):
            raise ValueError(
                f"--cfg-options data_root={root}: no data set of {cfg.filename} has a path that "
                f"begins with its data_root, {old!r}; name the places that are to be changed, as "
                "in train_dataloader.dataset.data_root=..."
            )
        cfg.data_root = root
    for key, value in options.items():
        if reason := _dead_end(cfg, key, options):
            raise ValueError(f"--cfg-options {key}={value}: {reason}")
    cfg.merge_from_dict(options)


def _dead_end(cfg: Config, key: str, options: dict[str, Any]) -> str | None:
    """Why a key of an option leads nowhere in a config; ``None`` if it does not.

    Anything has parts that another option replaces (``_delete_=True``).
    """
    node: Any = cfg
    names = key.split(".")
    for i, name in enumerate(names):
        place = ".".join(names[:i])
        if options.get(f"{place}._delete_"):
            return None
        if isinstance(node, list | tuple):
            if not name.isdecimal() or int(name) >= len(node):
                return f"{place} is a list, whose parts are {place}.0 to {place}.{len(node) - 1}"
            if i == len(names) - 1 and not isinstance(options[key], dict):
                return f"single entries of a list cannot be set; give all of {place}"
            node = node[int(name)]
        elif isinstance(node, dict | Config):
            node = node.get(name, {})  # what is new is made
        else:
            return f"{place} is {node!r}, which has no {name}"
    return None


def _move(node: Any, old: str, new: str, seen: set[int]) -> int:
    """Let all paths below a node that begin with a folder begin with another; count them."""
    if not isinstance(node, dict | list) or id(node) in seen:
        return 0
    seen.add(id(node))
    moved = 0
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(value, str) and f"{value}/".startswith(f"{old.rstrip('/')}/"):
            node[key] = new.rstrip("/") + value[len(old.rstrip("/")) :]
            moved += 1
        else:
            moved += _move(value, old, new, seen)
    return moved
