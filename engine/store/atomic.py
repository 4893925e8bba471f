"""Files that appear whole or not at all, and the disk's refusals in one line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
from safetensors import SafetensorError

from engine.errors import StorageError, WinnowError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR}


@contextlib.contextmanager
def storage_errors(what: str, place: Path) -> Iterator[None]:
    """Turn the disk's refusals (full, read-only) into one StorageError that names what was being written."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"no space left to write {what} in {place}; free some space and run the same command again"
            ) from error
        if error.errno in _REFUSED:
            raise StorageError(f"not allowed to write {what} in {place}: {error.strerror}") from error
        raise
    except SafetensorError as error:
        if any(text in str(error) for text in ("os error 28", "os error 27", "os error 122")):
            raise StorageError(f"no space left to write {what} in {place}; free some space and run again") from error
        raise
    except (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException) as error:
        text = str(error)
        if any(word in text for word in ("No space left", "File too large", "Disk quota", "Could not write")):
            raise StorageError(
                f"no space left to write {what} in {place}; free some space and run the same command again"
            ) from error
        raise StorageError(f"{what} in {place}: {text.splitlines()[0]}") from error


def write_export(path: Path, write: Any) -> None:
    """Write a file by write(temporary path) and put it at path only when it is whole."""
    if not path.parent.is_dir():
        raise WinnowError(f"no folder {path.parent}; make it first or choose another --to")
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with storage_errors(path.name, path.parent):
            write(temp)
            fsync(temp)
            os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def remove_path(path: Path) -> None:
    """Delete a file or a folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temp.write_text(text)
        fsync(temp)
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
