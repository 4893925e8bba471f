"""Files that appear whole or not at all, and the disk's refusals in one line."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import shutil
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
from safetensors import SafetensorError

from engine.errors import StorageError, WinnowError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PID_BITS = 22  # the most that Linux gives to the number of a process
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}


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
        if is_full(error):
            raise StorageError(
                f"no space left to write {what} in {place}; free some space and run the same command again"
            ) from error
        raise StorageError(f"{what} in {place}: {text.splitlines()[0]}") from error


def is_full(error: duckdb.Error) -> bool:
    """Whether DuckDB could not write because the disk, or what this user may have of it, is full."""
    return any(words in str(error) for words in ("No space left", "File too large", "Disk quota", "Could not write"))


@contextlib.contextmanager
def replacing(path: Path, what: str = "") -> Iterator[Path]:
    """A temporary path beside `path`: what is written there is put in its place when the block ends well.

    Until then, and when the block fails, `path` stays as it was. what: names it in an error, default its file name.
    """
    temp = path.with_name(f".{path.name}.{_machine() << _PID_BITS | os.getpid()}-{threading.get_ident()}.tmp")
    try:
        _remove_temporary(path)
        with storage_errors(what or path.name, path.parent):
            temp.unlink(missing_ok=True)  # whatever lies there, such as a link, is not what will be written
            yield temp
            fsync(temp)
            os.replace(temp, path)
            fsync(path.parent)
    finally:
        for left in (temp, temp.with_name(temp.name + ".wal")):  # the second is DuckDB's
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside `path`, which gets its name, all at once, when the block ends well.

    Raises: WinnowError when `path` is there and no empty folder
    """
    if not path.parent.is_dir():
        raise WinnowError(f"no folder {path.parent}; make it first or choose another --to")
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or any(path.iterdir())):
        raise WinnowError(f"{path} is there already; remove it, or choose a folder that is not there yet as --to")
    temp = path.with_name(f".{path.name}.{_machine() << _PID_BITS | os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with storage_errors(path.name, path.parent):
            _remove_temporary(path)
            remove_path(temp)
            temp.mkdir()
            yield temp
            if hasattr(os, "sync"):  # of a million files, each of its own would take hours
                os.sync()
            if path.is_dir():
                path.rmdir()  # Windows puts nothing in place of a folder
            os.rename(temp, path)
            fsync(path.parent)
    finally:
        remove_path(temp)


def _machine() -> int:
    """A number for this machine: others may share its disk."""
    return zlib.crc32(socket.gethostname().encode())


def _remove_temporary(path: Path) -> None:
    """Remove the temporary files and folders beside a path that processes of this machine left which are there no more."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp*"):
        found = re.fullmatch(r"\.(\d+)-\d+\.tmp(\.wal)?", left.name[len(path.name) + 1 :])
        machine, pid = divmod(int(found[1]), 1 << _PID_BITS) if found else (0, 0)
        if machine == _machine() and os.name != "nt":  # where signal 0 ends a process
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                remove_path(left)
            except PermissionError:  # somebody else's, which runs
                continue


def publish_folder(temp: Path, path: Path) -> None:
    """Give a folder that is written whole its name, by one rename that is on the disk when this returns."""
    for file in temp.iterdir():
        fsync(file)
    os.rename(temp, path)
    fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file, whole or not at all."""
    with replacing(path) as temp:
        temp.write_text(text, encoding="utf-8")


def write_export(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that a person named by write(temporary path), whole or not at all."""
    if not path.parent.is_dir():
        raise WinnowError(f"no folder {path.parent}; make it first or choose another --to")
    if path.is_dir():
        raise WinnowError(f"{path} is a folder; give the name of a file in it as --to")
    with replacing(path) as temp:
        write(temp)


def remove_path(path: Path) -> None:
    """Delete a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # which Windows cannot open, and needs not
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """12 hexadecimal digits of the SHA-256 of a file: the same name with other content is another run."""
    return sha256_of(path)[:12]
