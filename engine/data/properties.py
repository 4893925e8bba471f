"""Properties of a picture, measured where it is decoded: brightness, sharpness, information, shape, size.

The formulas are those of CleanVision 0.3.7 (https://github.com/cleanlab/cleanvision, issue_managers/image_property.py),
computed for many small images at once and from whole numbers. Its own functions take several times as long as all the
rest of the ingest of a CIFAR image, and it cannot be imported without matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from engine.store.tables import PROPERTIES

Array = np.ndarray[Any, Any]

LONGEST = 192
"""Larger pictures are reduced by a whole factor to at most so many pixels a side before they are measured."""

PIXELS_AT_ONCE = 1 << 15
"""Of small pictures together: what is made of so many stays in a processor's cache."""

EDGE_SIDE = 64
"""Pixels of the longer side at which sharpness is measured."""

_WEIGHTS = np.array([241, 691, 68], np.int32)
_SQUARES = np.arange(256, dtype=np.int32) ** 2
_SQUARED_BRIGHTNESS = _WEIGHTS[:, None] * _SQUARES
"""(3, 256): what each value of each channel adds to 1000 times the squared brightness of a pixel."""

_GRAY = np.array([19595, 38470, 7471], np.int32)[:, None] * np.arange(256, dtype=np.int32)
"""(3, 256): what each value adds to 65,536 times the gray value, as Pillow weighs them."""


def shrink(image: Image.Image) -> Image.Image:
    """The picture (L or RGB) that is measured: the image itself, or a reduced one where a side is above LONGEST."""
    factor = math.ceil(max(image.size) / LONGEST)
    return image.reduce(factor) if factor > 1 else image


def measure(pictures: Sequence[Image.Image], sizes: Sequence[tuple[int, int]]) -> Array:
    """The properties of some pictures, (n, 8) float64, columns as PROPERTIES.

    Args:    pictures: as `shrink` gives them; sizes: width and height of each file's image, in either order
    """
    out = np.empty((len(pictures), len(PROPERTIES)))
    groups: dict[tuple[str, tuple[int, int]], list[int]] = {}
    for i, picture in enumerate(pictures):
        groups.setdefault((picture.mode, picture.size), []).append(i)
    for (_, (wide, high)), members in groups.items():
        step = max(1, PIXELS_AT_ONCE // (wide * high))
        for some in (members[i : i + step] for i in range(0, len(members), step)):
            out[some, :6] = _measure_pixels([pictures[i] for i in some])
    width, height = np.array(sizes, np.float64).reshape(-1, 2).T
    out[:, 6] = np.minimum(width / height, height / width)
    out[:, 7] = np.sqrt(width) * np.sqrt(height)
    return out


def _measure_pixels(pictures: Sequence[Image.Image]) -> Array:
    """The first six properties of pictures of one mode and size, (n, 6)."""
    n, channels = len(pictures), len(pictures[0].getbands())
    pixels = np.stack([np.asarray(picture) for picture in pictures]).reshape(n, -1, channels)
    if n == 1:  # Pillow counts a large picture ten times as fast, and a small one half as fast
        counts = np.array(pictures[0].histogram()).reshape(1, channels, 256)
    else:
        counts = _histograms(np.moveaxis(pixels, 2, 1).reshape(n * channels, -1)).reshape(n, channels, 256)
    # einsum, because BLAS ends the process where it gets no memory
    means = np.einsum("ncv,v->nc", counts, np.arange(256.0)) / pixels.shape[1]
    share = counts.reshape(n, -1) / (channels * pixels.shape[1])
    entropy = -(share * np.log2(np.where(share > 0, share, 1.0))).sum(1)
    if channels == 1:
        squared = 1000 * _SQUARES[pixels[:, :, 0]]
        brightness = means[:, 0]
    else:
        squared = sum(_SQUARED_BRIGHTNESS[c][pixels[:, :, c]] for c in range(3))
        brightness = np.sqrt(np.einsum("nc,c->n", means**2, _WEIGHTS / 1000))
    low, high = _percentiles(squared, (5, 99))
    gray = _gray_at_edge_side(pictures, pixels)
    spread = _histograms(gray.reshape(n, -1)).std(1)
    return np.column_stack([brightness / 255, low, high, _edge_deviation(gray), spread, entropy])


def _histograms(values: Array) -> Array:
    """Counts of the 256 values in each row of (n, m) uint8, (n, 256)."""
    rows = np.arange(len(values))[:, None] * 256
    return np.bincount((rows + values).ravel(), minlength=256 * len(values)).reshape(len(values), 256)


def _percentiles(squared: Array, percents: tuple[int, ...]) -> list[Array]:
    """Percentiles of the brightness in each row of (n, m), 1000 times squared; between two values as numpy's."""
    at = [(squared.shape[1] - 1) * percent / 100 for percent in percents]
    places = sorted({int(place) for place in at} | {math.ceil(place) for place in at})
    ordered = np.partition(squared, places, axis=1)
    found = []
    for place in at:
        below, above = (np.sqrt(ordered[:, i] / 1000) / 255 for i in (int(place), math.ceil(place)))
        found.append(below + (above - below) * (place - int(place)))
    return found


def _gray_at_edge_side(pictures: Sequence[Image.Image], pixels: Array) -> Array:
    """The pictures in gray, (n, H, W) uint8, their longer side at most EDGE_SIDE."""
    width, height = pictures[0].size
    ratio = max(width, height) / EDGE_SIDE
    if ratio > 1:
        size = max(int(width // ratio), 1), max(int(height // ratio), 1)
        return np.stack([np.asarray(picture.resize(size).convert("L")) for picture in pictures])
    shape = len(pictures), height, width
    if pixels.shape[2] == 1:
        return pixels.reshape(shape)
    weighed: Array = _GRAY[0][pixels[:, :, 0]] + _GRAY[1][pixels[:, :, 1]] + _GRAY[2][pixels[:, :, 2]]
    return np.asarray(((weighed + 0x8000) >> 16).reshape(shape), np.uint8)


def _edge_deviation(gray: Array) -> Array:
    """Standard deviation (n,) of Pillow's FIND_EDGES: 8 times each pixel less its neighbors, the border as it is."""
    edges = gray.astype(np.int16)
    height, width = gray.shape[1:]
    if min(height, width) > 2:
        rows = edges[:, :-2] + edges[:, 1:-1] + edges[:, 2:]
        around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
        edges[:, 1:-1, 1:-1] = np.clip(9 * edges[:, 1:-1, 1:-1] - around, 0, 255)
    flat = edges.reshape(len(gray), -1).astype(np.float64)
    return np.asarray(flat.std(1))
