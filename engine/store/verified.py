"""Whether published files are what their manifest lists: sizes at every opening, hashes once. No torch.

A published folder (a run's results, stored features) holds `manifest.json` with the size and the SHA-256 of every file. Which
files were hashed and found right is kept in the user's cache folder, outside every workspace, by what changes whenever a
file is copied or written. So a file is hashed when it is first opened after a copy and never again, and a run that this
user computed never. A manifest protects against damage and against changes to a part, not against somebody who writes
another manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from platformdirs import user_cache_path

from engine.errors import StorageError
from engine.store.attached import identity_of
from engine.store.documents import NO_LINK, number, read_bytes, read_json, require_regular
from engine.store.records import FORMAT

MANIFEST = "manifest.json"
_BLOCK_BYTES = 1 << 20
_MOST_LINES = 50_000

Report = Callable[[int], None]
"""Called with the bytes that were read since the last call; may raise to stop."""


@dataclass(frozen=True)
class Listed:
    """A file as its manifest lists it."""

    bytes: int
    sha256: str


def read_manifest(folder: Path) -> dict[str, Listed]:
    """The files that a published folder lists, by name.

    Raises: StorageError, without what to do about it, when there is no manifest, or a damaged or newer one
    """
    if folder.is_symlink():
        raise StorageError(f"{folder} is a link; a workspace holds its files itself")
    path = folder / MANIFEST
    content = read_json(path)
    files = content.get("files") if isinstance(content, dict) else None
    version = number(content.get("format")) if isinstance(content, dict) else 0
    if version > FORMAT:
        raise StorageError(f"{folder} has format {version:g}, this winnow reads up to {FORMAT}; upgrade winnow-images")
    if not isinstance(files, dict):
        raise StorageError(f"{path} is damaged: it lists no files")
    listed = {}
    for name, about in files.items():
        size, sha256 = (about.get("bytes"), about.get("sha256")) if isinstance(about, dict) else (None, None)
        if not (isinstance(size, int) and isinstance(sha256, str) and re.fullmatch(r"\w[\w.-]*", name)):
            raise StorageError(f"{path} is damaged at {name!r:.80}")
        listed[name] = Listed(size, sha256)
    return listed


def check_sizes(folder: Path, listed: dict[str, Listed]) -> None:
    """Refuse a folder with a file that is cut short, longer than listed, or a link.

    A file that is gone is left to who reads it: a run whose weights were deleted still has its results.

    Raises: StorageError, without what to do about it
    """
    for name, about in listed.items():
        path = folder / name
        if os.path.lexists(path):
            require_regular(path)  # a run that is removed meanwhile is one that cannot be read
            size = identity_of(path)[2]
            if size != about.bytes:
                raise StorageError(f"{path} has {size:,} bytes, {about.bytes:,} in its manifest; it is damaged")


def checked_file(folder: Path, name: str) -> Path:
    """The path of a file in a published folder, which is what the manifest lists.

    Raises: StorageError, without what to do about it, when it is not
    """
    path = folder / name
    about = read_manifest(folder).get(name)
    if about is None:
        raise StorageError(f"{path} is not in its manifest; it is damaged" if path.exists() else f"{path} is missing")
    require_regular(path)
    check_sizes(folder, {name: about})
    if not is_known(path, about.sha256):
        check_hash(path, about)
        remember(path, about.sha256)
    return path


def file_of(folder: Path, name: str) -> Path:
    """The path of a file of a run: checked where the folder is published, as it is in the folder of a run being computed."""
    return folder / name if folder.name.startswith(".") else checked_file(folder, name)


def check_hash(path: Path, about: Listed, report: Report = lambda count: None) -> None:
    """Read a file whole; StorageError, without what to do about it, when its SHA-256 is not the listed one."""
    found = hashlib.sha256()
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | NO_LINK)) as file:
            while block := file.read(_BLOCK_BYTES):
                found.update(block)
                report(len(block))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if found.hexdigest() != about.sha256:
        raise StorageError(f"{path} is not the file that was published: its SHA-256 differs from its manifest's")


# What was verified ---------------------------------------------------------------------------------------------

_of_process: set[str] = set()


def is_known(path: Path, sha256: str) -> bool:
    """Whether a file, as it is now, was verified before: by this process, or by one of this user's that wrote it down."""
    line = _line(path, sha256)
    return line in _of_process or line in _written()


def remember(path: Path, sha256: str) -> None:
    """Note that a file, as it is now, is what its manifest lists. Where the cache refuses, this process alone knows."""
    line = _line(path, sha256)
    _of_process.add(line)
    cache = _cache()
    with contextlib.suppress(OSError, StorageError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(cache, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_LINK, 0o600)
        try:
            if os.fstat(handle).st_size > _MOST_LINES * 65:
                os.truncate(handle, 0)  # each of them is verified once more
            os.write(handle, f"{line}\n".encode())
        finally:
            os.close(handle)


def _line(path: Path, sha256: str) -> str:
    return hashlib.sha256(repr((identity_of(path), sha256)).encode()).hexdigest()


def _cache() -> Path:
    return user_cache_path("winnow") / "verified.txt"


def _written() -> frozenset[str]:
    cache = _cache()
    try:
        found = cache.stat()
    except OSError:
        return frozenset()
    return _read(cache, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1)
def _read(cache: Path, size: int, changed: int) -> frozenset[str]:
    try:
        return frozenset(read_bytes(cache).decode("ascii", "replace").split())
    except (StorageError, OSError):
        return frozenset()
