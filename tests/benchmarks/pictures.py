"""Pictures and class names for generated workspaces: small, many, and told apart at a glance."""

from __future__ import annotations

import colorsys
import itertools
from typing import Any

import numpy as np
from PIL import Image

from engine.data.thumbnails import image_thumbnail

SIDE = 32
"""Pixels a side."""

PICTURES = 4096
"""Different pictures, over all classes; at least 4 of a class."""

ADJECTIVES = (
    "red blue green black white gray brown yellow spotted striped crested northern southern eastern western great "
    "small common lesser dwarf giant wild desert mountain river forest arctic golden silver dusky pale masked hooded "
    "ringed horned slender hairy smooth"
).split()
NOUNS = (
    "fox owl crane finch beetle otter lynx heron viper gecko salmon perch wasp moth spider tern plover badger hare "
    "bison ibex toad newt crab shrike wren warbler falcon"
).split()

Array = np.ndarray[Any, Any]


def class_names(classes: int, long: bool) -> list[str]:
    """That many different names: two words each, or with `long` some 150 characters with brackets and commas."""
    pairs = [f"{a} {b}" for b, a in itertools.product(NOUNS, ADJECTIVES)]
    step = 41  # has no factor in common with the number of pairs: neighboring classes share no word
    names = [pairs[i * step % len(pairs)] + (f" {i // len(pairs)}" if i >= len(pairs) else "") for i in range(classes)]
    if not long:
        return names
    return [
        f"{name}, adult in winter plumage or coat, photographed from the side (includes {names[i - 1]} and "
        f"hybrids; formerly '{name} complex', group {i})"
        for i, name in enumerate(names)
    ]


def draw_pictures(classes: int, per_class: int, seed: int) -> Array:
    """Pictures (classes * per_class, 3, SIDE, SIDE) uint8, those of a class in a row.

    A class has a shape, two colors and the direction of its background; a picture has a place, a size, a tone and a
    second, fainter shape of its own.
    """
    rng = np.random.default_rng([seed, 101])
    grid = (np.arange(SIDE, dtype=np.float32) - SIDE / 2 + 0.5) / (SIDE / 2)
    y, x = grid[None, :, None], grid[None, None, :]
    out = np.empty((classes, per_class, 3, SIDE, SIDE), np.uint8)
    for c in range(classes):
        hue = c * 0.618034 % 1
        back, front = (
            np.array(colorsys.hsv_to_rgb(*hsv)) for hsv in ((hue, 0.55, 0.55), ((hue + 0.45) % 1, 0.8, 0.95))
        )
        place = rng.uniform(-0.35, 0.35, (2, per_class, 1, 1)).astype(np.float32)
        size = rng.uniform(0.3, 0.6, (per_class, 1, 1)).astype(np.float32)
        angle = (c * 0.7 + rng.uniform(-0.3, 0.3, (per_class, 1, 1))).astype(np.float32)
        tone = rng.uniform(0.75, 1.2, (per_class, 1, 1, 1)).astype(np.float32)
        u = np.cos(angle) * (x - place[0]) + np.sin(angle) * (y - place[1])
        v = np.cos(angle) * (y - place[1]) - np.sin(angle) * (x - place[0])
        inside = _shape(c % 6, u / size, v / size)[:, None]
        other = (((x + place[1]) / 0.25) ** 2 + ((y - place[0]) / 0.25) ** 2 < 1)[:, None]
        shade = 0.75 + 0.25 * (np.cos(c * 2.4) * x + np.sin(c * 2.4) * y)[:, None]
        color = np.where(inside, front[:, None, None], back[:, None, None] * shade)
        color = np.where(other & ~inside, 0.6 * color + 0.25, color) * tone
        out[c] = (color.clip(0, 1) * 255).astype(np.uint8)
    return out.reshape(-1, 3, SIDE, SIDE)


def _shape(kind: int, u: Array, v: Array) -> Array:
    """Where one of six shapes of radius 1 is: disc, ring, square, cross, stripes, triangle."""
    far = np.hypot(u, v)
    square = np.maximum(abs(u), abs(v))
    thin = np.minimum(abs(u), abs(v)) < 0.3
    shapes = (
        lambda: far < 1,
        lambda: (far < 1) & (far > 0.55),
        lambda: square < 0.85,
        lambda: thin & (square < 1),
        lambda: (square < 1) & (np.sin(u * 9) > 0),
        lambda: (v < 0.7) & (v > 1.6 * abs(u) - 1),
    )
    return shapes[kind]()


def encode_thumbnails(pictures: Array) -> list[bytes]:
    """Each picture as the WebP that `winnow ingest` would make of it."""
    return [image_thumbnail(Image.fromarray(picture)) for picture in pictures.transpose(0, 2, 3, 1)]
