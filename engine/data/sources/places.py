"""The original of a sample, found by the `source` of the view `samples`: as large as it is, not as networks see it."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from PIL import Image

from engine.data.images import open_image
from engine.data.parts import Vector
from engine.data.sources.kinds import Rows, declared_sources
from engine.errors import SourceError
from engine.store.trust import Roots

_ROW = re.compile(r"(.+):(\d{1,9})", re.DOTALL)


def open_original(place: str, within: Roots | None = None) -> Image.Image | Vector:
    """The image or vector at a place: opened, not decoded and not shrunk. Safe from several threads.

    Args:   place: an absolute path, or <file or source>:<index in it>; within: below what the file must lie,
            None = anywhere, where the caller named it
    Raises: READ_ERRORS of engine.data.images when it may not be opened, is not there any more, or is not readable
    """
    match, within = _ROW.fullmatch(place), within or Roots((Path("/"),))
    if match and not Path(place).exists():
        if "/" in match[1] or os.sep in match[1]:
            within.require(Path(match[1]))
        try:
            rows = _rows(match[1])
        except SourceError as error:  # of the file that holds it: for whoever opens one image, a reason like any other
            raise ValueError(str(error)) from error
        if rows:
            return rows(int(match[2]))
    return open_image(within.require(Path(place)))


@lru_cache(maxsize=8)
def _rows(text: str) -> Rows | None:
    """What opens the rows of a file or source that holds many; None when it is neither."""
    for kind in declared_sources():
        if kind.rows and (found := kind.rows(text)):
            return found
    return None
