"""Exports with the images themselves: the originals, found again and checked, for the formats that need them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.data.decoding import pillow_warnings
from engine.data.images import SUFFIXES
from engine.data.originals import Originals
from engine.errors import SpecError
from engine.queries.connection import fetch_sql
from engine.queries.versions import choose_version
from engine.queries.writers import Choice, Exported, Link, Picture, Selection, Writer, export_choice
from engine.store.progress import Listener
from engine.store.workspace import Workspace

_AT_ONCE = 256
"""Images that are read at once, by as many threads as there are processors."""


class OriginalImages:
    """The originals of samples as pictures to write; where one is gone, was changed or may not be read, its problem.

    thumbnails: whether the thumbnail stands in for such a one
    Raises: SpecError for a dataset of vectors
    """

    def __init__(self, workspace: Workspace, selection: Selection, thumbnails: bool) -> None:
        self._selection, self._thumbnails = selection, thumbnails
        shape, dtype = selection.values("SELECT input_shape, input_dtype FROM dataset").iloc[0]
        if len(shape) != 3 or dtype != "uint8":
            raise SpecError(
                f"dataset '{selection.dataset}' holds vectors, not images; allowed as --format: those without images, "
                "such as csv and parquet"
            )
        self._originals = Originals(workspace, selection.dataset, int(max(shape[1:])))

    def fetch(self, sample_ids: Sequence[int]) -> Iterator[Picture]:
        """One picture of each, ids ascending, in order."""
        with pillow_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(sample_ids), _AT_ONCE):
                some = [int(i) for i in sample_ids[start : start + _AT_ONCE]]
                pictures = list(pool.map(self._picture, *zip(*self._originals.stored(some), strict=True)))
                yield from self._stood_in(pictures) if self._thumbnails else pictures

    def _picture(self, sample: int, small: np.ndarray[Any, np.dtype[np.uint8]]) -> Picture:
        found = self._originals.as_it_is(sample, small)
        if isinstance(found, str):
            return Picture(sample, problem=found)
        if isinstance(found, Path):
            return Picture(sample, found, suffix=_suffix(found))
        file = io.BytesIO()
        found.save(file, "PNG")
        return Picture(sample, data=file.getvalue(), suffix=".png")

    def _stood_in(self, pictures: Sequence[Picture]) -> Iterator[Picture]:
        missing = [picture.sample_id for picture in pictures if picture.problem]
        rows = fetch_sql(
            self._selection.cursor,
            "SELECT sample_id, thumbnail FROM images WHERE sample_id IN (SELECT unnest($ids::INTEGER[]))",
            {"ids": missing},
        )
        found = {int(i): bytes(data) for i, data in zip(rows["sample_id"], rows["thumbnail"], strict=True)}
        for picture in pictures:
            if data := found.get(picture.sample_id):
                picture = Picture(picture.sample_id, data=data, suffix=".webp", stands_in=True)
            yield picture


def _suffix(path: Path) -> str:
    """What the name of a copy of an image file ends with, so that readers take it for an image."""
    if path.suffix.lower() in SUFFIXES:
        return path.suffix
    with Image.open(path) as image:
        return {"JPEG": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}.get(str(image.format), f".{image.format}".lower())


def export_set(
    workspace: Workspace,
    dataset: str,
    choice: Choice,
    to: Path,
    writer: Writer,
    *,
    version: str = "",
    link: Link = "copy",
    thumbnails: bool = False,
    listen: Listener = lambda stage, share, left: None,
) -> Exported:
    """`export_choice` in any format: those with images get the originals.

    Args:   version: of the curated set, whose samples and labels are taken; link: copy, hardlink or symlink, how image files
            get into a folder; thumbnails: write the thumbnail where an original is gone, was changed, or lies outside of
            what this user named to the workspace
    Raises: WinnowError, which counts and names them, for such originals without `thumbnails`; NotFoundError for an unknown
            version
    """
    if version:
        choice = choose_version(workspace, dataset, version, choice)
    return export_choice(
        workspace,
        dataset,
        choice,
        to,
        writer,
        images=lambda selection: OriginalImages(workspace, selection, thumbnails),
        link=link,
        listen=listen,
    )
