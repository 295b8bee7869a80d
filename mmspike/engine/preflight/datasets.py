"""The data sets of a config, looked at through their wrappers, without reading them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from mmspike.engine.configs import find_class, type_name
from mmspike.engine.preflight.report import Report

_COCO = "mmdet.datasets.coco", "CocoDataset"
_SEG = "mmseg.datasets.basesegdataset", "BaseSegDataset"
_CLS = "mmpretrain.datasets.custom", "CustomDataset"


@dataclass
class Leaf:
    """A data set that reads files itself.

    Attributes:
        key: Where it stands in the config, such as ``train_dataloader.dataset``.
        cfg: Its config.
        dataset: The data set, nothing read yet.
        kind: ``"coco"``, ``"seg"`` or ``"cls"``.
        after: What the pipelines of its wrappers do after its own.
    """

    key: str
    cfg: dict[str, Any]
    dataset: Any
    kind: str
    after: tuple[Any, ...] = ()

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, as far as they are told."""
        classes = self.dataset.metainfo.get("classes")
        if classes is None and self.kind == "cls":  # its folders, in their order
            root = Path(self.dataset.img_prefix or ".")
            folders = root.iterdir() if root.is_dir() and not self.dataset.ann_file else ()
            classes = sorted(folder.name for folder in folders if folder.is_dir()) or None
        return None if classes is None or isinstance(classes, str) else tuple(classes)

    def loader(self, name: str = "LoadAnnotations") -> dict[str, Any] | None:
        """The first transform of that name in the pipeline."""
        return next((t for t in self.cfg.get("pipeline", []) if type_name(t) == name), None)


def find_leaves(
    cfg: dict[str, Any], key: str, report: Report, after: tuple[Any, ...] = ()
) -> Iterator[Leaf]:
    """Look through the wrappers of a data set.

    Args:
        cfg: Config of a data set, or of one that wraps others.
        key: Where it stands.
        report: Learns of what is missing or unknown.
        after: Transforms of the wrappers outside of it.

    Yields:
        The data sets inside whose type is known.
    """
    inside = (*(cfg.get("pipeline") or ()), *after)
    if isinstance(cfg.get("dataset"), dict):
        yield from find_leaves(cfg["dataset"], f"{key}.dataset", report, inside)
    elif isinstance(cfg.get("datasets"), list | tuple):
        for i, inner in enumerate(cfg["datasets"]):
            yield from find_leaves(inner, f"{key}.datasets.{i}", report, inside)
    else:
        leaf = _open(cfg, key, report)
        if leaf is not None:
            leaf.after = after
            yield leaf


def _open(cfg: dict[str, Any], key: str, report: Report) -> Leaf | None:
    kind = _kind(cfg)
    if kind is None:
        report.skip(key, f"since data sets of type {type_name(cfg)} are not known here")
        return None
    if cfg.get("backend_args") or "://" in str(cfg.get("data_root")):
        report.skip(key, "since its files are not local")
        return None
    try:
        dataset = DATASETS.build({**cfg, "pipeline": [], "lazy_init": True})
    except Exception as error:  # mmseg's VOC looks for its files here
        if not _name_missing(cfg, key, report):
            report.skip(key, f"since it cannot be built: {error}")
        return None
    if isinstance(dataset.metainfo.get("classes"), str):
        given = dataset.metainfo["classes"]
        report.problem(
            f"{key}.metainfo.classes", f"is the text {given!r}", f'write a tuple: ("{given}",)'
        )
        return None
    return Leaf(key, cfg, dataset, kind)


def _kind(cfg: dict[str, Any]) -> str | None:
    """Which of the hosts' readers a data set uses, told without importing a host for it."""
    cls: Any = find_class(DATASETS, cfg)
    bases = {(c.__module__, c.__name__): c for c in getattr(cls, "__mro__", ())}
    if _SEG in bases:
        return "seg"
    if _CLS in bases:
        return "cls" if cls.load_data_list is bases[_CLS].load_data_list else None
    if _COCO not in bases:
        return None
    base = bases[_COCO]
    same = all(
        getattr(cls, name) is getattr(base, name) for name in ("load_data_list", "parse_data_info")
    )
    return "coco" if same and cls.COCOAPI is base.COCOAPI else None


def _name_missing(cfg: dict[str, Any], key: str, report: Report) -> bool:
    """Report the files and folders of a data set that are not there."""
    root = Path(cfg.get("data_root") or "")
    named = {"ann_file": cfg.get("ann_file")}
    named.update({f"data_prefix.{k}": v for k, v in (cfg.get("data_prefix") or {}).items()})
    missing = {k: root / v for k, v in named.items() if v and not (root / v).exists()}
    for name, path in missing.items():
        report.problem(f"{key}.{name}", f"there is no {path}", f"mend it, or {key}.data_root")
    return bool(missing)
