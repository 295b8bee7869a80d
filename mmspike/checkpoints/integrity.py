"""Whether a file's bytes are those that were written: hash and checksums, beside the reading."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mmengine.logging import print_log

T = TypeVar("T")
_CHUNK = 1 << 22  # bytes at a time


def beside(function: Callable[[Path], T], path: Path) -> Future[T]:
    """Call a function of a file on another thread.

    Reading, hashing and checksums release the interpreter.
    """
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, path)
    pool.shutdown(wait=False)
    return future


def already(value: T) -> Future[T]:
    """A result that needs no thread."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def sha256(path: Path) -> str:
    """Hash of a file, hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def is_zip(path: Path) -> bool:
    """Whether ``torch.save`` wrote the file as an archive, as it has done since torch 1.6."""
    with path.open("rb") as f:
        return f.read(4) == b"PK\x03\x04"


def find_damage(path: Path) -> str:
    """Compare an archive with the checksums in it; torch reads over them.

    ``torch.save`` writes a CRC-32 of every record unless
    ``torch.serialization.set_crc32_options(False)`` was called; it then writes zeros, and there is
    nothing to compare with, which a warning says.

    Args:
        path: An archive, see :func:`is_zip`.

    Returns:
        What is damaged, in words; empty if nothing is.
    """
    name = "(the list of records)"
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if not any(record.CRC for record in records):
                print_log(
                    f"checkpoint {path}: written without checksums, so that damage is not seen",
                    "current",
                    level=30,
                )
                return ""
            for record in records:
                name = record.filename
                with archive.open(record) as file:
                    while file.read(_CHUNK):  # raises at the record's end
                        pass
    except zipfile.BadZipFile as error:
        return str(error)
    except Exception as error:  # what zipfile raises for damaged headers is not listed
        return f"{error or type(error).__name__} in record {name!r}"
    return ""
