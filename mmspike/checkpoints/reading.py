"""Reading checkpoint files without running anything that they hold."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging.history_buffer import HistoryBuffer

from mmspike.checkpoints.integrity import already, beside, find_damage, is_zip, sha256


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit the model; the message says why."""


@dataclass(frozen=True)
class CheckpointFile:
    """What a checkpoint file holds.

    Attributes:
        path: The file; for a URL, the local copy.
        content: The object that was saved, tensors on the CPU or on ``map_location``.
        metadata: Metadata of a safetensors file; empty for others.
        digest: Hash of the file in the making, which another thread computes.
    """

    path: Path
    content: Any
    metadata: dict[str, str]
    digest: Future[str]

    @property
    def sha256(self) -> str:
        """Hash of the file, hexadecimal; empty if it was not asked for."""
        return self.digest.result()


def read_checkpoint(
    file: str | os.PathLike[str],
    map_location: Any = "cpu",
    hashed: bool = True,
    mmap: bool = False,
) -> CheckpointFile:
    """Read a ``.safetensors`` file, or one that ``torch.save`` wrote.

    Files of torch are read with ``weights_only=True``. Beside tensors and plain Python values, they
    may hold an ``argparse.Namespace``, paths, NumPy arrays and numbers, and the histories that
    mmengine keeps; a file that asks for anything else is refused, and nothing of it runs. Their
    checksums are compared with their bytes; safetensors files and those of torch before 1.6 have
    none.

    Args:
        file: Path, or an ``http(s)://`` address, which is downloaded once to torch's cache.
        map_location: Where tensors go, see ``torch.load``.
        hashed: Whether to hash the file, while it is read.
        mmap: Whether tensors are mapped into memory and read when they are used, where the file
            allows it: fast, but the file must not change as long as they are alive.

    Raises:
        CheckpointError: If there is no such file, it is empty, cut off, damaged, no checkpoint at
            all, or asks for something that is not allowed.
    """
    path = _local(file)
    is_safetensors = _check_head(path)
    digest = beside(sha256, path) if hashed else already("")
    damage = beside(find_damage, path) if is_zip(path) else already("")
    metadata: dict[str, str] = {}
    try:
        if is_safetensors:
            content, metadata = _read_safetensors(path, map_location)
        else:
            content = _read_torch(path, map_location, mmap)
    finally:  # damage is the better reason, whatever torch made of the bytes
        if damage.result():
            raise CheckpointError(
                f"checkpoint {path}: the file is cut off or damaged, its bytes are not those that "
                f"were written ({damage.result()}). Compare its size with the source's, fetch it "
                "again"
            )
    return CheckpointFile(path, content, metadata, digest)


def _local(file: str | os.PathLike[str]) -> Path:
    """The file, downloaded if it is an address."""
    name = os.fspath(file)
    if not name.startswith(("http://", "https://")):
        path = Path(name).expanduser()
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no such file"
            raise CheckpointError(f"checkpoint {path}: {what}")
        return path
    # the hash of the address keeps two files of one name apart
    address = hashlib.sha256(name.encode()).hexdigest()[:8]
    basename = Path(urlparse(name).path).name or "checkpoint.pth"
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{address}-{basename}"
    rank, _ = get_dist_info()
    error = None
    if rank == 0 and not path.exists():
        try:
            _download(name, path)
        except Exception as e:  # whatever it is: the other ranks wait at the barrier
            error = e
    barrier()
    if error is not None or not path.exists():
        raise CheckpointError(f"checkpoint {name}: cannot be downloaded: {error}") from error
    return path


def _download(address: str, path: Path) -> None:
    """Fetch a file to ``path``, whole and readable, or leave nothing there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    try:
        torch.hub.download_url_to_file(address, str(partial), progress=True)
        read_checkpoint(partial, hashed=False, mmap=True)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _check_head(path: Path) -> bool:
    """Refuse what is no checkpoint at all, by its first bytes; tell whether it is safetensors."""
    with path.open("rb") as f:
        head = f.read(512)
    if not head:
        raise CheckpointError(f"checkpoint {path}: the file is empty")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(
            f"checkpoint {path}: this is a web page, not weights. The download ended on a login, "
            "confirmation or error page; fetch the file itself"
        )
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"checkpoint {path}: this is a pointer of Git LFS, not weights; run `git lfs pull`"
        )
    return head[8:9] == b"{" and not head.startswith(b"PK")  # after the length of its header


def _read_safetensors(path: Path, map_location: Any) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    device = map_location if isinstance(map_location, str | torch.device) else "cpu"
    try:
        with safe_open(path, framework="pt", device=str(device)) as f:
            return {key: f.get_tensor(key) for key in f.keys()}, f.metadata() or {}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"checkpoint {path}: not a whole safetensors file ({error}); it is cut off or damaged"
        ) from error


def _read_torch(path: Path, map_location: Any, mmap: bool) -> Any:
    mmap = mmap and str(map_location) == "cpu" and is_zip(path)
    try:
        with _allowed():
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_explain(path, error)) from error
    except Exception as error:  # what torch and safetensors raise for damaged files is not listed
        first_line = str(error).strip().splitlines()[:1]
        raise CheckpointError(
            f"checkpoint {path}: cannot be read ({''.join(first_line) or type(error).__name__}). "
            "The file is cut off or damaged: compare its size with the source's, fetch it again"
        ) from error


def _explain(path: Path, error: Exception) -> str:
    asked = re.search(r"(?:GLOBAL|global|function|class)[: ]+`?([\w.]+\.[\w.]+)", str(error))
    if asked:
        return (
            f"checkpoint {path}: refused, nothing of it was run. It asks for {asked[1]}, which is "
            "not among what weights need. If you trust its source, load it there and save its "
            "state_dict() alone"
        )
    return (
        f"checkpoint {path}: neither a file of torch.save nor a safetensors file, or one that is "
        "cut off or damaged"
    )


@contextmanager
def _allowed() -> Iterator[None]:
    """Allow what a file may ask for by name, beside what torch and the caller allow."""
    core = np._core if hasattr(np, "_core") else np.core
    multiarray = core.multiarray
    names: list[Any] = [argparse.Namespace, slice, np.ndarray, np.dtype, HistoryBuffer]
    names += {type(np.dtype(c)) for c in "?bBhHiIlLqQefdU"}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # of NumPy 1, of NumPy 2
        names += [(multiarray._reconstruct, f"{module}._reconstruct")]
        names += [(multiarray.scalar, f"{module}.scalar")]
    names += [(_method_of_history, "builtins.getattr")]
    names += [(PurePosixPath, f"pathlib.{kind}Path") for kind in ("PurePosix", "Posix")]
    before = set(torch.serialization.get_safe_globals())
    HistoryBuffer()  # has mmengine register its own methods, which a resumed run asks for
    methods = dict(HistoryBuffer._statistics_methods)
    try:
        with torch.serialization.safe_globals([n for n in names if n not in before]):
            yield
    finally:  # what a history brings along is kept on its class, by mmengine
        HistoryBuffer._statistics_methods.clear()
        HistoryBuffer._statistics_methods.update(methods)


def _method_of_history(owner: Any, name: str) -> Any:
    """Stand in for ``getattr``, which mmengine's histories ask for to name their own methods."""
    if owner is not HistoryBuffer or name.startswith("_"):
        raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {owner!r}.{name}")
    return getattr(owner, name)
