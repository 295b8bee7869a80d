"""Files that a config names and that are not there, or cannot be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mmspike.checkpoints import CheckpointError, read_checkpoint
from mmspike.engine.configs import is_pretrained
from mmspike.engine.preflight.report import Report, spread
from mmspike.engine.weights import is_absent

_FOLDERS = 100  # listed as a whole; of more, a sample of files is looked for


def missing_files(paths: Sequence[str]) -> list[str]:
    """Those of the files that do not exist.

    Folders are listed, not asked for each file, which is quick for 100,000 files. Where they lie in
    very many folders, a sample is looked for.
    """
    folders = {os.path.dirname(path) for path in paths}
    if len(folders) > _FOLDERS:
        return [path for path in spread(paths, 200) if not os.path.exists(path)]
    found: dict[str, set[str]] = {}
    for folder in folders:
        try:
            found[folder] = set(os.listdir(folder or "."))
        except OSError:
            found[folder] = set()
    return [p for p in paths if os.path.basename(p) not in found[os.path.dirname(p)]]


def suffixes(folder: str | os.PathLike[str], most: int = 10_000) -> list[str]:
    """The endings of the files under a folder, the most frequent first."""
    counts: Counter[str] = Counter()
    for _, _, names in os.walk(folder):
        counts.update(os.path.splitext(name)[1] for name in names)
        if counts.total() > most:
            break
    return [suffix for suffix, _ in counts.most_common()]


def check_checkpoints(cfg: dict[str, Any], mode: str, report: Report) -> None:
    """Look whether the checkpoints that are to be loaded are there, and whole.

    Args:
        cfg: The whole config.
        mode: ``"train"`` or ``"test"``; testing does not read what training starts from.
        report: Learns of those that are missing, cut off, damaged or no checkpoints.
    """
    _check_file("load_from", cfg.get("load_from"), "give the checkpoint's path", report)
    if mode != "train":
        return
    resumes = bool(cfg.get("resume") and cfg.get("load_from"))
    for key, file in _pretrained(cfg["model"], "model"):
        if resumes and is_absent(file):  # not needed, see leave_out_absent
            continue
        part = key.removesuffix(".checkpoint")
        cure = (
            f"docs/transfer.md tells where to get it; --cfg-options {part}=None trains from scratch"
        )
        _check_file(key, file, cure, report)
    teacher = cfg["model"].get("teacher")
    teacher = teacher if isinstance(teacher, dict) else {}  # the model says what is wrong
    for name in ("model", "checkpoint"):
        file, cure = teacher.get(name), f"give the teacher's {name}"
        if name == "checkpoint" or str(file).endswith(".py"):
            _check_file(f"model.teacher.{name}", file, cure, report)


def _check_file(key: str, file: Any, cure: str, report: Report) -> None:
    """Look for a checkpoint, and read it but for its tensors, whose checksums are compared."""
    if not isinstance(file, str) or file == "" or "://" in file:
        return
    if is_absent(file):
        report.problem(key, f"there is no file {file}", cure)
        return
    if file.endswith(".py"):
        return
    try:
        read_checkpoint(file, hashed=False, mmap=True)
    except CheckpointError as error:
        report.problem(key, str(error), f"or {cure}")


def _pretrained(cfg: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The keys and files of all ``Pretrained`` initialisations in a model's config."""
    if isinstance(cfg, list | tuple):
        for i, value in enumerate(cfg):
            yield from _pretrained(value, f"{key}.{i}")
    if not isinstance(cfg, dict):
        return
    if is_pretrained(cfg):
        yield f"{key}.checkpoint", cfg.get("checkpoint")
    if isinstance(cfg.get("pretrained"), str):
        yield f"{key}.pretrained", cfg["pretrained"]
    for name, value in cfg.items():
        yield from _pretrained(value, f"{key}.{name}")
