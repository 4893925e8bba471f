"""Generated textures that are as hard to tell apart as photographs: what the shipped noise detector learns from."""

from __future__ import annotations

from typing import Any

import numpy as np

CLASSES = 12
SIDE = 96
"""Pixels a side."""

Array = np.ndarray[Any, Any]


def draw_textures(count: int, seed: int) -> tuple[Array, Array]:
    """Images (count, 3, SIDE, SIDE) uint8 and their classes (count,) int64; the same for the same seed.

    A class is a pattern. Direction, size, colors, background, contrast, blur and grain are each image's own, and so low a
    contrast occurs that some images cannot be told.
    """
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, count)
    return np.stack([_draw(int(c), rng) for c in classes]), classes.astype(np.int64)


def _draw(pattern: int, rng: np.random.Generator) -> Array:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - SIDE / 2 - rng.uniform(-20, 20, (2, 1, 1)).astype(np.float32)
    turn = rng.uniform(0, np.pi)
    scale = 2 * np.pi / rng.uniform(9, 26)
    u, v = (x * np.cos(turn) + y * np.sin(turn)) * scale, (y * np.cos(turn) - x * np.sin(turn)) * scale
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    ink = (
        lambda: np.sin(u),  # stripes
        lambda: np.sin(u) * np.sin(v),  # checks
        lambda: np.sin(radius),  # rings
        lambda: np.sin(u + 1.5 * np.sin(v)),  # waves
        lambda: np.tanh(4 * (np.cos(u) + np.cos(v) - 0.9)),  # dots
        lambda: np.tanh(5 * (np.maximum(np.cos(u), np.cos(v)) - 0.8)),  # a grid
        lambda: np.sin(u + np.abs((v / np.pi) % 2 - 1) * 3),  # zigzags
        lambda: np.tanh(
            5 * (np.maximum(np.cos(u), np.cos(v / 2 + np.pi * (np.floor(u / np.pi / 2) % 2))) - 0.8)
        ),  # bricks
        lambda: _grain(rng, 7.0) * 2,  # clouds
        lambda: np.tanh(5 * _grain(rng, 3.0)),  # camouflage
        lambda: np.sin(radius + 3 * angle),  # spirals
        lambda: np.sin(8 * angle),  # rays
    )[pattern]()
    low, high = rng.uniform(0, 1, (2, 3, 1, 1))
    contrast = rng.uniform(0.05, 1) ** 1.5
    shade = rng.uniform(-0.3, 0.3, (3, 1, 1)) * x / SIDE + rng.uniform(-0.3, 0.3, (3, 1, 1)) * y / SIDE
    image = (low + high) / 2 + shade + contrast * (high - low) / 2 * ink
    image = image + rng.uniform(0, 0.15) * rng.standard_normal((3, SIDE, SIDE))
    image = _blur(image, rng.uniform(0, 3.0))
    return (255 * image.clip(0, 1)).astype(np.uint8)


def _grain(rng: np.random.Generator, width: float) -> Array:
    """Smooth noise (SIDE, SIDE) of standard deviation 1."""
    found = _blur(rng.standard_normal((1, SIDE, SIDE)), width)[0]
    return (found - found.mean()) / found.std()


def _blur(image: Array, width: float) -> Array:
    """(C, SIDE, SIDE) under a Gaussian of that many pixels, around the edges."""
    frequency = np.fft.fftfreq(SIDE)
    falloff = np.exp(-2 * (np.pi * width * frequency) ** 2)
    spectrum = np.fft.fft2(image) * falloff[:, None] * falloff[None, :]
    return np.fft.ifft2(spectrum).real
