"""Reading small files that another version, or somebody else, may have written: regular files alone, of bounded size.

A folder, a pipe or a device in place of a file is refused instead of waited for.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from engine.errors import StorageError

_MOST_BYTES = 1 << 24

NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
"""For `os.open` of a file in a workspace: a link in its place, which may lead anywhere, is an error."""


def require_regular(path: Path, missing_ok: bool = False) -> None:
    """StorageError, without what to do about it, unless there is a regular file of its own at path: no link, no pipe.

    missing_ok: or nothing at all, such as a file that another process has just deleted
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if missing_ok:
            return
        raise StorageError(f"{path} is missing") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if stat.S_ISLNK(mode):
        raise StorageError(f"{path} is a link; a workspace holds its files itself")
    if not stat.S_ISREG(mode):
        raise StorageError(f"{path} is not a regular file")


def read_bytes(path: Path, last_bytes: int | None = None) -> bytes:
    """The content of a regular file, or only its end.

    Raises: FileNotFoundError when it is not there; StorageError when it is no regular file or cannot be read
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | NO_LINK
        handle = os.open(path, flags)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise StorageError(f"{path} is not a regular file")
        with open(handle, "rb") as file:
            if last_bytes is not None:
                file.seek(max(0, file.seek(0, os.SEEK_END) - last_bytes))
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StorageError(f"{path} is a link; a workspace holds its files itself") from error
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """The JSON value in a file; StorageError, without what to do about it, when there is none."""
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise StorageError(f"{path} has {size:,} bytes; at most {_MOST_BYTES:,} are read")
        text = read_bytes(path)
        value = json.loads(text)
        if re.search(rb"\\u[dD][89a-fA-F]", text):  # half a character, which no terminal and no page can show
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StorageError(f"{path} is missing") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is not valid JSON") from error


def number(value: Any, default: float = 0.0) -> float:
    """A value of a document as a finite number, or the default where it is something else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    return float(value) if abs(value) < 1e300 else default
