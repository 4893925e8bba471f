"""The images that a dataset was made from, at another size than it stores: found again and checked.

A dataset stores small inputs. What needs more pixels reads the files themselves, which may have been moved, changed
or lost since: an image that does not look like the stored input is not taken, and the stored input stands in for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from engine.data.columns import parse_wanted
from engine.data.dataset_file import fetch_one, read_blocks, reading
from engine.data.images import READ_ERRORS, decode, fit, open_image
from engine.data.parts import Part
from engine.data.sources import open_source
from engine.data.sources.places import open_original
from engine.errors import SpecError, WinnowError
from engine.store.workspace import Workspace

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

UNLIKE = 16.0
"""Mean difference of pixel values, 0..255, from which an image is not the one that was ingested. Another version of a
JPEG decoder makes less than 2, another photograph 40 and more."""

LARGEST = 1 << 29
"""Bytes of a file from which it is no image that anybody ingested."""

NOTHING = bytes(16)


class Known(NamedTuple):
    """What somebody has already of an image. origin: as in `Seen`; row: whatever it is."""

    origin: bytes
    row: Any


Lookup = Callable[[int, bytes], Known | None]
"""(sample id, origin or file) -> what is known of it."""


@dataclass(frozen=True)
class Seen:
    """One sample, either decoded or known already.

    pixels: (3, S, S) uint8; origin: 16 bytes that stand for what they were made from (the bytes of a file, or the pixels
    themselves); file: 16 bytes that stand for a file's path, size and time, zeros without one; stands_in: whether the
    stored input stands in for an original that is gone
    """

    pixels: Pixels | None
    known: Known | None
    origin: bytes
    file: bytes = NOTHING
    stands_in: bool = False


class Originals:
    """The originals of a dataset's samples, images all, as 3 x side x side pixels.

    An original is scaled to cover the square and cropped around its center, as in ingest; gray is put in all three
    channels. Several threads may `read` at once; around them is one `engine.data.decoding.pillow_warnings`.

    known: spares reading and decoding what somebody has already
    Raises: SpecError for a dataset of vectors
    """

    def __init__(
        self, workspace: Workspace, dataset: str, side: int, known: Lookup = lambda sample, stands_for: None
    ) -> None:
        self.workspace, self.dataset, self.side, self.known = workspace, dataset, side, known
        self._path = workspace.require_dataset(dataset)
        self._lock = threading.Lock()
        with reading(self._path) as connection:
            shape, dtype = fetch_one(connection, "SELECT input_shape, input_dtype FROM dataset")
            rows = connection.execute("SELECT source, split FROM samples ORDER BY sample_id").fetchall()
        self.shape = tuple(shape)
        if len(self.shape) != 3 or dtype != "uint8":
            raise SpecError(
                f"--features names a network for images; dataset '{dataset}' holds vectors of shape {self.shape}: "
                "leave it out, or give a file of features"
            )
        self.places: list[str] = [row[0] or "" for row in rows]
        self._is_train = [row[1] == "train" for row in rows]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, samples: Sequence[int], heartbeat: Callable[[], None]) -> list[Seen]:
        """Some samples, ids ascending, in order. heartbeat: called before each, may raise to stop."""
        found: list[Seen] = []
        first, last, wanted = samples[0], samples[-1] + 1, set(samples)
        with reading(self._path) as connection:
            (begin,) = fetch_one(connection, f"SELECT max(first_id) FROM inputs WHERE first_id <= {first}")
            for start, n, data in read_blocks(connection, begin, last - begin):
                block = np.frombuffer(data, np.uint8).reshape(n, *self.shape)
                for sample in range(max(first, start), min(last, start + n)):
                    if sample not in wanted:
                        continue
                    heartbeat()
                    found.append(self._see(sample, block[sample - start]))
        return found

    def _see(self, sample: int, small: Pixels) -> Seen:
        path = self.path_of(sample)
        found = self._see_in_source(sample, small) if path is None else self._see_file(sample, path, small)
        if found is None:
            picture = Image.fromarray(small[0] if len(small) == 1 else small.transpose(1, 2, 0))
            found = self._see_pixels(sample, picture, stands_in=True)
        return found

    def _see_file(self, sample: int, path: Path, small: Pixels) -> Seen | None:
        """The image of a file; None when it is gone, damaged or another one."""
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
                return None
            file = digest(f"{path.absolute()}\0{about.st_size}\0{about.st_mtime_ns}".encode())
            if known := self.known(sample, file):
                return Seen(None, known, known.origin, file)
            data = path.read_bytes()
            origin = digest(data)
            if known := self.known(sample, origin):
                return Seen(None, known, origin, file)
            with open_image(data) as opened:
                image = decode(opened, 2 * self.side)
        except READ_ERRORS:
            return None
        return Seen(self._square(image), None, origin, file) if _is_like(image, small) else None

    def _see_in_source(self, sample: int, small: Pixels) -> Seen | None:
        """The image that the source gives, where it is no file of its own; None when the source is gone or another."""
        found = self._in_source(sample)
        try:
            # what was added from another source is found by its place alone
            opened = found[0].load(found[1]) if found else open_original(self.places[sample])
            if not isinstance(opened, Image.Image):
                return None
            with opened:
                image = decode(opened, 2 * self.side)
        except READ_ERRORS:
            return None
        return self._see_pixels(sample, image) if _is_like(image, small) else None

    def _see_pixels(self, sample: int, image: Image.Image, stands_in: bool = False) -> Seen:
        pixels = self._square(image)
        origin = digest(pixels.tobytes())
        known = self.known(sample, origin)
        return Seen(None if known else pixels, known, origin, stands_in=stands_in)

    def _square(self, image: Image.Image) -> Pixels:
        return fit(image, (3, self.side, self.side))

    # Where the originals are ---------------------------------------------------------------------------------

    def path_of(self, sample: int) -> Path | None:
        """The file of a sample, there or not; None where samples are not files of their own (`<source>:<index>`)."""
        place = self.places[sample]
        if not place or re.search(r":\d+$", place):
            return None
        path = Path(place)
        if path.is_absolute():
            return path
        return next((folder / path for folder in self._folders if (folder / path).exists()), path)

    @cached_property
    def _folders(self) -> list[Path]:
        """Where relative places may begin: they are as ingest was given them, its working folder unknown."""
        sources = [Path(text) for text in (self._spec.get("source"), self._spec.get("test")) if text]
        return [folder for source in sources for folder in (source, *source.parents)]

    @cached_property
    def _spec(self) -> dict[str, Any]:
        """What the dataset was ingested from, or the one that it derives from."""
        dataset = self.dataset
        while True:
            with reading(self.workspace.dataset_path(dataset)) as connection:
                text, parent = fetch_one(connection, "SELECT spec, parent FROM dataset")
            if parent is None or parent not in self.workspace.datasets():
                return dict(json.loads(text))
            dataset = parent

    def _in_source(self, sample: int) -> tuple[Part, int] | None:
        with self._lock:
            places = self._source_places[0 if self._is_train[sample] else 1]
        return places.get(self.places[sample])

    @cached_property
    def _source_places(self) -> tuple[dict[str, tuple[Part, int]], dict[str, tuple[Part, int]]]:
        """Where the samples of the training and of the test split are in the source, by place; empty if it is gone."""
        try:
            wanted = parse_wanted(self._spec.get("columns"), "none")
            source = open_source(self._spec["source"], int(self._spec.get("seed", 0)), self._spec.get("test"), wanted)
        except (WinnowError, OSError, ValueError, KeyError):
            return {}, {}  # the stored inputs stand in, and whoever streams counts them
        train = _by_place(source.train)
        return train, train if source.test is None else _by_place(source.test)


def _by_place(part: Part) -> dict[str, tuple[Part, int]]:
    """The samples of a part by place, and by what version 0.1 called it: without the folder of its file."""
    earlier = {os.path.basename(place): (part, i) for i, place in enumerate(part.places)}
    return earlier | {place: (part, i) for i, place in enumerate(part.places)}


def digest(content: bytes) -> bytes:
    """16 bytes that stand for some content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def _is_like(image: Image.Image, small: Pixels) -> bool:
    """Whether an image is the one whose stored input (C, H, W) is given."""
    return float(np.abs(fit(image, small.shape).astype(np.int16) - small).mean()) < UNLIKE
