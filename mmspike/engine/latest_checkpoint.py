"""Finding the checkpoint that a training goes on from."""

from __future__ import annotations

import re
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from mmspike.checkpoints import CheckpointError, read_checkpoint


def resume_from_latest(cfg: Config) -> None:
    """Name the latest whole checkpoint of the work dir in a config that asks to resume.

    mmengine starts from zero where ``last_checkpoint`` is lost, and stops where the file that it
    names is. Here the next older whole file of the same kind (``iter_*.pth``, ``epoch_*.pth``) is
    taken, with a warning. A work dir without any checkpoint starts from zero, as in mmengine.

    Args:
        cfg: Config with ``resume`` and ``work_dir``; its ``load_from`` is set. Nothing happens
            unless it resumes, and names no file itself.

    Raises:
        CheckpointError: If checkpoints lie there, but ``last_checkpoint`` is missing or empty, or
            none of them is whole.
    """
    if not cfg.get("resume") or cfg.get("load_from") is not None:
        return
    work_dir = Path(cfg.work_dir)
    record = work_dir / "last_checkpoint"
    named = record.read_text().strip() if record.is_file() else ""
    if not named:
        left = [path.name for path in _checkpoints(work_dir)]
        if not left and not record.exists():
            print_log(f"--resume: {work_dir} holds no checkpoint; starting from zero", "current")
            return
        raise CheckpointError(
            f"--resume: {record} is {'empty' if record.exists() else 'missing'}, and says nothing "
            f"about the checkpoints there: {', '.join(left) or 'none'}. Name the one to go on from "
            f"with --resume FILE"
            + ("" if left else f", or remove {record.name} to start from zero")
        )
    cfg.load_from = str(_first_whole(Path(named), work_dir))


def _first_whole(named: Path, work_dir: Path) -> Path:
    """The named file, or the next older one that can be read."""
    folders = [named.parent]
    if work_dir.resolve() != named.parent.resolve():  # a work dir may have been moved
        folders.append(work_dir)
    candidates = [folder / named.name for folder in folders]
    match = _NUMBERED.fullmatch(named.name)
    if match:
        others = [path for folder in folders for path in _checkpoints(folder)]
        older = [p for p in others if _key(p)[0] == match[1] and _key(p) < _key(named)]
        candidates += sorted(older, key=_key, reverse=True)
    problems = []
    for path in candidates:
        try:
            content = read_checkpoint(path, hashed=False).content
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if isinstance(content, dict) and {"state_dict", "meta", "optimizer"} <= content.keys():
            for problem in problems:
                print_log(f"--resume: {problem}", "current", level=30)
            if problems:
                print_log(f"--resume: going back to {path}", "current", level=30)
            return path
        problems.append(f"checkpoint {path}: holds weights alone, no state of a training")
    listed = "\n  ".join(problems)
    raise CheckpointError(f"--resume: no checkpoint to go on from in {work_dir}:\n  {listed}")


_NUMBERED = re.compile(r"(.*?)(\d+)(\.\w+)")


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that a training wrote at intervals, the latest first."""
    found = [p for p in folder.glob("*.pth") if re.fullmatch(r"(iter|epoch)_\d+\.pth", p.name)]
    return sorted(found, key=_key, reverse=True)


def _key(path: Path) -> tuple[str, int]:
    match = _NUMBERED.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} has no number")
    return match[1], int(match[2])
