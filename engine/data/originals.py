"""The images that a dataset was made from, at another size than it stores: found again and checked.

A dataset stores small inputs. What needs more pixels reads the files themselves, which may have been moved, changed
or lost since: an image that does not look like the stored input is not taken, and the stored input stands in for it. So it
does for an image outside of the folders that this user trusts in the workspace (engine.store.trust): somebody else may
have written where it is.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from engine.data.columns import parse_wanted
from engine.data.dataset_file import fetch_one, read_blocks, reading
from engine.data.images import READ_ERRORS, decode, fit, open_image, reason
from engine.data.parts import Part
from engine.data.sources import open_source
from engine.data.sources.places import open_original
from engine.data.whereabouts import Whereabouts
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
    stored input stands in for an original that is gone; outside: or that may not be read
    """

    pixels: Pixels | None
    known: Known | None
    origin: bytes
    file: bytes = NOTHING
    stands_in: bool = False
    outside: bool = False


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
        self._where = Whereabouts(workspace, dataset)
        self.roots = self._where.roots
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
        for sample, small in self.stored(samples):
            heartbeat()
            found.append(self._see(sample, small))
        return found

    def stored(self, samples: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
        """The samples, ids ascending, each with its stored input (C, H, W)."""
        first, last, wanted = samples[0], samples[-1] + 1, set(samples)
        with reading(self._path) as connection:
            (begin,) = fetch_one(connection, f"SELECT max(first_id) FROM inputs WHERE first_id <= {first}")
            for start, n, data in read_blocks(connection, begin, last - begin):
                block = np.frombuffer(data, np.uint8).reshape(n, *self.shape)
                for sample in range(max(first, start), min(last, start + n)):
                    if sample in wanted:
                        yield sample, block[sample - start]

    def as_it_is(self, sample: int, small: Pixels) -> Path | Image.Image | str:
        """The original of a sample: its file, or the decoded image of its source; else, in a few words, why there is none.

        small: its stored input, which the original must look like
        """
        path = self._where.file_of(self.places[sample])
        if path is None:
            try:
                found = self._in_source(sample)
                opened = found[0].load(found[1]) if found else open_original(self.places[sample], self.roots)
                if not isinstance(opened, Image.Image):
                    return "it is no image"
                with opened:
                    image = decode(opened, LARGEST)
            except READ_ERRORS as error:
                return reason(error)
            return image if is_like(image, small) else "its source holds another image now"
        try:
            if not self.roots.cover(path):
                self.roots.require(path)  # which says what to do
            about = path.stat()
            if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
                return "not a regular file"
            with open_image(path) as opened:
                image = decode(opened, 2 * self.side)
        except READ_ERRORS as error:
            return reason(error)
        return path if is_like(image, small) else "the file holds another image now"

    def _see(self, sample: int, small: Pixels) -> Seen:
        path = self._where.file_of(self.places[sample])
        found = self._see_in_source(sample, small) if path is None else self._see_file(sample, path, small)
        if found is None:
            picture = Image.fromarray(small[0] if len(small) == 1 else small.transpose(1, 2, 0))
            found = self._see_pixels(sample, picture)
            found = replace(found, stands_in=True, outside=self._where.is_outside(self.places[sample]))
        return found

    def _see_file(self, sample: int, path: Path, small: Pixels) -> Seen | None:
        """The image of a file; None when it is gone, damaged or another one, or may not be read."""
        if not self.roots.cover(path):
            return None
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
        return Seen(self._square(image), None, origin, file) if is_like(image, small) else None

    def _see_in_source(self, sample: int, small: Pixels) -> Seen | None:
        """The image that the source gives, where it is no file of its own; None when the source is gone or another."""
        found = self._in_source(sample)
        try:
            # what was added from another source is found by its place alone
            opened = found[0].load(found[1]) if found else open_original(self.places[sample], self.roots)
            if not isinstance(opened, Image.Image):
                return None
            with opened:
                image = decode(opened, 2 * self.side)
        except READ_ERRORS:
            return None
        return self._see_pixels(sample, image) if is_like(image, small) else None

    def _see_pixels(self, sample: int, image: Image.Image) -> Seen:
        pixels = self._square(image)
        origin = digest(pixels.tobytes())
        known = self.known(sample, origin)
        return Seen(None if known else pixels, known, origin)

    def _square(self, image: Image.Image) -> Pixels:
        return fit(image, (3, self.side, self.side))

    def _in_source(self, sample: int) -> tuple[Part, int] | None:
        with self._lock:
            places = self._source_places[0 if self._is_train[sample] else 1]
        return places.get(self.places[sample])

    @cached_property
    def _source_places(self) -> tuple[dict[str, tuple[Part, int]], dict[str, tuple[Part, int]]]:
        """Where the samples of the training and of the test split are in the source, by place; empty if it is gone, or may
        not be read."""
        try:
            if not all(self.roots.cover(base) for base in self._where.bases):
                return {}, {}
            spec = self._where.spec
            wanted = parse_wanted(spec.get("columns"), "none")
            source = open_source(spec["source"], int(spec.get("seed", 0)), spec.get("test"), wanted, self.roots)
        except (WinnowError, OSError, ValueError, KeyError, TypeError, AttributeError):
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


def is_like(image: Image.Image, small: Pixels) -> bool:
    """Whether an image is the one whose stored input (C, H, W) is given."""
    return float(np.abs(fit(image, small.shape).astype(np.int16) - small).mean()) < UNLIKE
