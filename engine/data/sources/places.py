"""The original of a sample, found by the `source` of the view `samples`: as large as it is, not as networks see it."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from PIL import Image

from engine.data.images import open_image
from engine.data.parts import Vector
from engine.data.sources.kinds import Rows, declared_sources
from engine.errors import SourceError

_ROW = re.compile(r"(.+):(\d{1,9})", re.DOTALL)


def open_original(place: str) -> Image.Image | Vector:
    """The image or vector at a place: opened, not decoded and not shrunk. Safe from several threads.

    Args:   place: an absolute path, or <file or source>:<index in it>
    Raises: READ_ERRORS of engine.data.images when it is not there any more, or not readable
    """
    match = _ROW.fullmatch(place)
    try:
        rows = _rows(match[1]) if match and not Path(place).exists() else None
    except SourceError as error:  # of the file that holds it: for whoever opens one image, a reason like any other
        raise ValueError(str(error)) from error
    return rows(int(match[2])) if match and rows else open_image(Path(place))


@lru_cache(maxsize=8)
def _rows(text: str) -> Rows | None:
    """What opens the rows of a file or source that holds many; None when it is neither."""
    for kind in declared_sources():
        if kind.rows and (found := kind.rows(text)):
            return found
    return None
