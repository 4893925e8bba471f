"""The paths that a pattern such as shards/**/*.parquet matches, without walking in circles."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
from collections.abc import Iterator
from pathlib import Path


def matching(pattern: Path) -> list[Path]:
    """All paths that match, in order; ** is any number of folders, and never a link to one.

    Unlike glob.glob, which follows two links upwards exponentially often and recurses as deep as folders go. What must
    not be read matches nothing.
    """
    found = [Path(pattern.anchor)]
    for part in pattern.parts[1:]:
        if part == "**":
            found = list(dict.fromkeys(below for folder in found for below in _below(folder)))
        elif glob.has_magic(part):
            hidden = part.startswith(".")
            found = [
                Path(entry.path)
                for folder in found
                for entry in _entries(folder)
                if fnmatch.fnmatchcase(entry.name, part) and (hidden or not entry.name.startswith("."))
            ]
        else:
            found = [folder / part for folder in found if os.path.lexists(folder / part)]
    return sorted(found)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from entries


def _below(folder: Path) -> Iterator[Path]:
    """A folder and all below it."""
    waiting = [folder]
    while waiting:
        yield (at := waiting.pop())
        waiting += [
            Path(entry.path)
            for entry in _entries(at)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        ]
