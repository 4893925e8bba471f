"""Links in a workspace. Whoever sent it may have put them there, and what is written or deleted through one is outside.

The workspace itself may be a link, because the user named it; nothing below it may.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import StorageError

_PLACES = ("datasets", "runs", "features", "detectors", "jobs")


def refuse_linked_places(root: Path) -> None:
    """StorageError when one of the folders of a workspace is a link, or no folder."""
    for name in _PLACES:
        path = root / name
        if path.is_symlink():
            raise StorageError(
                f"{path} is a link, and a workspace lies in one place; move the folder that it leads to here, or move the "
                "whole workspace there and link that"
            )
        if path.exists() and not path.is_dir():
            raise StorageError(f"{path} is not a folder; move it away, or choose another --workspace")


def link_in(path: Path) -> Path | None:
    """The first link at a path or below it, following none; None when there is none, or nothing at all."""
    if path.is_symlink():
        return path
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    return Path(entry.path)
                if entry.is_dir(follow_symlinks=False) and (found := link_in(Path(entry.path))):
                    return found
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    return None


def refuse_links(path: Path, what: str) -> None:
    """StorageError when there is a link at a path or below it. what: what to do about it"""
    if found := link_in(path):
        raise StorageError(f"{found} is a link, and a workspace holds its files itself; {what}")
