"""The original of one sample for a person to look at: large, and as bytes that every browser draws."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from engine.data.decoding import pillow_warnings
from engine.data.images import READ_ERRORS, decode, one_large_at_a_time, reason
from engine.data.originals import UNLIKE
from engine.data.sources.places import open_original
from engine.data.thumbnails import SHARP
from engine.data.whereabouts import Whereabouts
from engine.store.workspace import Workspace

Missing = Literal["", "moved", "changed", "outside", "unreadable"]

LOSSLESS = 256
"""Pixels a side up to which an original is sent as it is; larger ones as JPEG."""


@dataclass(frozen=True)
class Viewed:
    """What there is to see of a sample.

    content: the bytes of a WebP or JPEG, b"" where the thumbnail stands in or is the original itself; width, height: of
    the original, 0 where unknown; path: of its file, "" where it is in none; missing: why the thumbnail stands in: the
    file is not there (moved), holds another image (changed), may not be read here (outside) or cannot be (unreadable);
    problem: the last in a few words
    """

    content: bytes = b""
    width: int = 0
    height: int = 0
    path: str = ""
    missing: Missing = ""
    problem: str = ""


class Viewer:
    """Opens the originals of a dataset for people; where one is gone, its thumbnail stands in."""

    def __init__(self, workspace: Workspace, dataset: str) -> None:
        self._where = Whereabouts(workspace, dataset)

    def is_gone(self, place: str) -> bool:
        """Whether a sample's file is not where it was, nor where it is looked for."""
        file = self._where.file_of(place)
        return file is not None and not self._where.is_outside(place) and not file.exists()

    def view(self, place: str, thumbnail: bytes, most: int) -> Viewed:
        """The original at a place, at most `most` pixels a side.

        Args: place: as the column `source` of the view `samples` has it; thumbnail: of the same sample, by which an image
              that has taken the place of the original is noticed
        """
        file = self._where.file_of(place)
        path = str(file) if file else ""
        try:
            small = Image.open(io.BytesIO(thumbnail), formats=("WEBP",)).convert("RGB")
        except READ_ERRORS:
            return Viewed(path=path, missing="unreadable", problem="its thumbnail cannot be read")
        inside = place.rpartition(":")[0] if file is None else path
        if file is None and not re.search(r"[/\\]", inside):  # made by a name: nothing larger is kept of it
            return Viewed(width=small.width, height=small.height)
        if self._where.is_outside(place):
            return Viewed(path=inside, missing="outside")
        if not Path(inside).exists():
            return Viewed(path=inside, missing="moved")
        if max(small.size) <= SHARP:  # kept pixel by pixel, larger images are not
            return Viewed(width=small.width, height=small.height, path=inside)
        try:
            with pillow_warnings():
                opened = open_original(path or place, self._where.roots)
                if not isinstance(opened, Image.Image):
                    return Viewed(path=inside)
                with opened, one_large_at_a_time(opened):
                    return _shown(opened, small, most, inside)
        except READ_ERRORS as error:
            return Viewed(path=inside, missing="unreadable", problem=reason(error))


def _shown(opened: Image.Image, small: Image.Image, most: int, path: str) -> Viewed:
    width, height = opened.size
    image = decode(opened, most)
    if (image.width > image.height) != (width > height):  # turned upright
        width, height = height, width
    if not _looks_like(image, small):
        return Viewed(path=path, missing="changed")
    image.thumbnail((most, most), Image.Resampling.BICUBIC, reducing_gap=2.0)
    out = io.BytesIO()
    if max(image.size) <= LOSSLESS:
        image.save(out, "WEBP", lossless=True, quality=0, method=0)
    else:
        image.save(out, "JPEG", quality=88)
    return Viewed(out.getvalue(), width, height, path)


def _looks_like(image: Image.Image, small: Image.Image) -> bool:
    """Whether an image is the one that a thumbnail was made from."""
    if abs(image.width / image.height - small.width / small.height) > 0.1 * small.width / small.height:
        return False
    again = image.convert("RGB").resize(small.size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    apart = np.asarray(again, np.int16) - np.asarray(small, np.int16)
    return float(np.abs(apart).mean()) < UNLIKE
