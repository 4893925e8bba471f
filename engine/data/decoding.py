"""From a part of a source to inputs of one shape: probing, and decoding in order on a few threads."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from engine.data.images import READ_ERRORS, decode, fit, one_large_at_a_time, reason
from engine.data.parts import Labels, Part
from engine.data.properties import measure, shrink
from engine.data.thumbnails import SHARP, SIDE, image_thumbnail, vector_thumbnail
from engine.errors import BadSampleError

PROBES = 64
_CHUNK = 64
"""Samples per task of a thread."""


@dataclass(frozen=True)
class Form:
    """What every input is made into: shape (C, H, W) uint8 or (D,) float32.

    low, high: the range of values that a vector's picture shows.
    """

    shape: tuple[int, ...]
    dtype: str
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Decoded:
    """Some samples, decoded: inputs (n, *shape), n thumbnails, what was measured of them (`measure`; None of vectors),
    their n positions in the part, and the bad ones as (place, reason)."""

    inputs: np.ndarray[Any, Any]
    thumbnails: list[bytes]
    properties: np.ndarray[Any, Any] | None
    positions: Labels
    bad: list[tuple[str, str]]


def choose_form(part: Part, image_size: int | None) -> Form:
    """The form of a part's inputs, from up to 64 evenly spaced samples.

    Images that all have one size up to 64 x 64 keep it; others become 64 x 64, or image_size x image_size where
    that is given. They are gray only if all that were looked at are. Bad samples are passed over here: they
    are met again when they are decoded.
    Raises: BadSampleError when none can be read.
    """
    probes: list[Any] = []
    errors: list[BadSampleError] = []
    with pillow_warnings():
        for position in np.linspace(0, len(part) - 1, min(PROBES, len(part))).round().astype(np.int64):
            try:
                loaded = part.load(int(position))
                if isinstance(loaded, np.ndarray):
                    probes.append(loaded)
                    continue
                with loaded, one_large_at_a_time(loaded):
                    image = decode(loaded, 2 * SHARP)
                    probes.append((image.mode, image.size))  # and not its pixels, which may be gigabytes
            except READ_ERRORS as error:
                errors.append(_bad_sample(part, int(position), error))
    if not probes:
        raise errors[0]
    if isinstance(probes[0], np.ndarray):
        low, high = np.quantile(np.stack(probes), [0.01, 0.99])
        return Form(probes[0].shape, "float32", float(low), float(high))
    channels = 1 if all(mode == "L" for mode, _ in probes) else 3
    sizes = {size for _, size in probes}
    width, height = sizes.pop() if len(sizes) == 1 else (SHARP + 1, SHARP + 1)
    if image_size is not None:
        width = height = image_size
    elif max(width, height) > SHARP:
        width = height = SHARP
    return Form((channels, height, width), "uint8")


def decode_in_order(part: Part, form: Form, skip_bad: bool, on_done: Callable[[int], None]) -> Iterator[Decoded]:
    """All samples of a part, a few dozen at a time, in order, decoded by a few threads that run a little ahead.

    on_done gets the number of samples done. Raises: BadSampleError, which names its place, at the first bad
    sample unless skip_bad is set; then the good ones come and the bad ones are listed.
    """
    workers = min(16, os.cpu_count() or 1)
    starts = deque(range(0, len(part), _CHUNK))
    running: deque[Future[Decoded]] = deque()
    done = 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        with pillow_warnings():
            while starts or running:
                while starts and len(running) < 2 * workers:
                    start = starts.popleft()
                    chunk = range(start, min(start + _CHUNK, len(part)))
                    running.append(_submitted(pool, _decode_chunk, part, form, chunk, skip_bad))
                decoded = running.popleft().result()
                done += len(decoded.positions) + len(decoded.bad)
                yield decoded
                on_done(done)
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ThreadPoolExecutor, function: Callable[..., Decoded], *arguments: Any) -> Future[Decoded]:
    try:
        return pool.submit(function, *arguments)
    except RuntimeError as error:  # "can't start new thread", where addresses or processes are limited
        raise MemoryError(str(error)) from error


def _decode_chunk(part: Part, form: Form, chunk: range, skip_bad: bool) -> Decoded:
    inputs = np.empty((len(chunk), *form.shape), form.dtype)
    thumbnails: list[bytes] = []
    pictures: list[Image.Image] = []
    sizes: list[tuple[int, int]] = []
    positions: list[int] = []
    bad: list[tuple[str, str]] = []
    for position in chunk:
        try:
            loaded = part.load(position)
            if not isinstance(loaded, np.ndarray):
                sizes.append(loaded.size)  # decoding may halve it
            inputs[len(positions)], thumbnail, picture = _decode_one(loaded, form)
        except READ_ERRORS as error:
            if not skip_bad:
                raise _bad_sample(part, position, error) from error
            bad.append((part.places[position], reason(error)))
            del sizes[len(pictures) :]
        else:
            positions.append(position)
            thumbnails.append(thumbnail)
            pictures += [] if picture is None else [picture]
    properties = None if form.dtype != "uint8" else measure(pictures, sizes)
    return Decoded(inputs[: len(positions)], thumbnails, properties, np.array(positions, np.int64), bad)


def _decode_one(
    loaded: Image.Image | np.ndarray[Any, Any], form: Form
) -> tuple[np.ndarray[Any, Any], bytes, Image.Image | None]:
    if isinstance(loaded, np.ndarray):
        if loaded.shape != form.shape or not np.isfinite(loaded).all():
            raise ValueError(f"a vector of shape {loaded.shape}, or not finite; allowed: finite, {form.shape}")
        return loaded, vector_thumbnail(loaded, form.low, form.high), None
    with loaded, one_large_at_a_time(loaded):
        image = decode(loaded, 2 * max(SIDE, *form.shape[1:]))
        return fit(image, form.shape), image_thumbnail(image), shrink(image)


def _bad_sample(part: Part, position: int, error: BaseException) -> BadSampleError:
    place = part.places[position]
    shown = place if len(place) <= 500 else f"{place[:500]}... ({len(place):,} characters)"
    return BadSampleError(f"{shown}: {reason(error)}; repair or remove it, or skip it with --skip-bad")


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Pillow warns of images above MAX_IMAGE_PIXELS and refuses those of twice that; here both are bad samples.

    Its warnings about odd metadata (a broken EXIF block in a good image) are left out.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
