"""Data sets of images to classify: a folder for each class, or a list of files with labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmspike.engine.preflight.classifiers import compare_names
from mmspike.engine.preflight.datasets import Leaf
from mmspike.engine.preflight.files import missing_files, suffixes
from mmspike.engine.preflight.report import Report, counted, listed, spread


def check_folders(leaf: Leaf, report: Report) -> int | None:
    """Check the images of a data set of mmpretrain's.

    Args:
        leaf: The data set.
        report: Learns of what is missing or does not fit the classes.

    Returns:
        How many images there are; ``None`` if they cannot be read.
    """
    dataset, key = leaf.dataset, f"{leaf.key}.data_prefix"
    root = dataset.img_prefix or "."
    if not Path(root).is_dir():
        cure = f"mend {key}, or {leaf.key}.data_root"
        report.problem(key, f"there is no folder {root}, which has one for each class", cure)
        return None
    if dataset.ann_file:
        return _check_list(leaf, report)
    if not dataset.with_label:
        return sum(1 for _ in _images(root, dataset.extensions))
    names = leaf.classes
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    if not folders:
        what = f"{root} has no folders, one for each class, such as n01440764/*.JPEG"
        report.problem(key, what, f"put the images of each class into one, or mend {key}")
        return None
    if names is not None and len(names) != len(folders):
        found, wanted = (counted(x, "class", "classes") for x in (folders, names))
        what = f"{root} has folders of {found}, but the data set {wanted}"
        report.problem(key, what, f"mend {leaf.key}.metainfo.classes, or the folders")
        return None
    compare_names(leaf, folders, report)
    _compare_splits(leaf, tuple(folders), report)
    counts = {f: sum(1 for _ in _images(Path(root, f), dataset.extensions)) for f in folders}
    empty = [name for name, count in counts.items() if not count]
    if len(empty) == len(folders):
        what = f"no file under {root} ends in {listed(sorted(dataset.extensions), 8)}"
        there = listed(s for s in suffixes(root) if s) or "nothing"
        report.problem(key, f"{what}; those there end in {there}", "mend it")
        return None
    if empty:
        report.warn(key, f"no images in {counted(empty, 'folder', 'folders')} of {root}")
    return sum(counts.values())


def _images(root: str | Path, extensions: tuple[str, ...]) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        yield from (os.path.join(folder, n) for n in names if n.lower().endswith(extensions))


def _compare_splits(leaf: Leaf, folders: tuple[str, ...], report: Report) -> None:
    """Folders are numbered in their order: other names in another split are other classes."""
    for key, others in report.folders.items():
        if others != folders:
            odd = sorted(set(folders) ^ set(others))
            what = f"its folders are not those of {key}: {listed(odd)} is in one alone"
            cure = "mend the folders: they are numbered in their order, so that labels differ"
            report.problem(f"{leaf.key}.data_prefix", what, cure)
    report.folders[leaf.key] = folders


def _check_list(leaf: Leaf, report: Report) -> int | None:
    """Check an annotation file of lines ``name label``."""
    file, key = leaf.dataset.ann_file, f"{leaf.key}.ann_file"
    if not Path(file).is_file():
        report.problem(key, f"there is no file {file}", f"mend it, or {leaf.key}.data_root")
        return None
    lines = [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    pairs: list[Any] = [line.strip().rsplit(" ", 1) for line in lines]
    if leaf.dataset.with_label:
        bad = next((i for i, p in enumerate(pairs) if len(p) != 2 or not p[1].isdigit()), None)
        if bad is not None:
            what = f"line {bad + 1} of {file} is {lines[bad]!r}"
            report.problem(key, what, "write the image's name and the number of its class")
            return None
        last, classes = max((int(label) for _, label in pairs), default=0), leaf.classes
        if classes is not None and last >= len(classes):
            what = f"{file} has the label {last}, but there are {len(classes)} classes from 0"
            report.problem(key, what, f"mend it, or {leaf.key}.metainfo.classes")
    paths = [str(Path(leaf.dataset.img_prefix, pair[0])) for pair in spread(pairs, 10_000)]
    lost = missing_files(paths)
    if lost:
        what = f"{len(lost)} of {len(paths)} images of {file} are missing, the first is {lost[0]}"
        report.problem(f"{leaf.key}.data_prefix", what, "mend the folder, or the names in the file")
    return len(pairs)
