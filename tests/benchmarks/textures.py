"""A folder of generated textures with a sub-folder per class, some of them in the wrong one.

    python tests/benchmarks/textures.py OUT [--n 3000] [--flip 0.08] [--seed 0] [--size 96] [--format png]

Writes OUT/<class>/<number>.png and OUT.csv with path,label,true_label. Classes differ by structure alone; within a
class, colors, scale, rotation, distortion, blur, light, background and the size of the picture differ. The longer side
is up to half longer than --size, the shorter one is at least that. The same arguments give the same pictures.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
Field = Callable[[Array, Array, Rng], Array]
"""(u, v, rng) -> what is drawn, 0..1, where the pattern repeats about every unit of the coordinates u and v (H, W)."""

LARGEST = 1.5
"""Of a side, in shortest sides."""


# What the classes are made of ------------------------------------------------------------------------------------


def edge(distance: Array, soft: float) -> Array:
    """1 where a distance is well above 0, 0 where it is well below, and a ramp of that width between."""
    return np.clip(distance / soft + 0.5, 0, 1)


def from_center(x: Array) -> Array:
    """The distance of coordinates to the middle of their unit, 0..1/2."""
    return np.abs(x - np.floor(x) - 0.5)


def per_cell(u: Array, v: Array, rng: Rng, count: int = 1) -> list[Array]:
    """Random numbers 0..1 that are constant within every unit cell."""
    table = rng.random((count, 64, 64))
    i, j = np.floor(u).astype(int) % 64, np.floor(v).astype(int) % 64
    return [values[i, j] for values in table]


def smooth(shape: tuple[int, int], grid: int, rng: Rng) -> Array:
    """(H, W) noise of about -1..1 with so many bumps along a side."""
    coarse = Image.fromarray(rng.normal(0, 0.5, (grid + 3, grid + 3)).astype(np.float32))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


def bars(x: Array, rng: Rng) -> Array:
    """Parallel bars of one width; where the bars of a set are, x is the middle of its unit."""
    return edge(rng.uniform(0.12, 0.34) - from_center(x), rng.uniform(0.03, 0.3))


# The classes -----------------------------------------------------------------------------------------------------


def stripes(u: Array, v: Array, rng: Rng) -> Array:
    drawn = bars(u, rng)
    return np.maximum(drawn, bars(3 * u, rng) * rng.uniform(0.2, 0.6)) if rng.random() < 0.4 else drawn


def checks(u: Array, v: Array, rng: Rng) -> Array:
    return edge(np.sin(np.pi * u) * np.sin(np.pi * v), rng.uniform(0.1, 1.0))


def dots(u: Array, v: Array, rng: Rng) -> Array:
    u = u + 0.5 * (np.floor(v) % 2) * (rng.random() < 0.5)
    size, right, down = per_cell(u, v, rng, 3)
    jitter = rng.uniform(0, 0.3)
    radius = rng.uniform(0.18, 0.36) * (1 - rng.uniform(0, 0.5) * size)
    across, along = u - np.floor(u) - 0.5 + jitter * (right - 0.5), v - np.floor(v) - 0.5 + jitter * (down - 0.5)
    return edge(radius - np.hypot(across, along), rng.uniform(0.05, 0.3))


def rings(u: Array, v: Array, rng: Rng) -> Array:
    middle = rng.uniform(0.2, 0.8, 2)
    across, along = u - np.quantile(u, middle[0]), v - np.quantile(v, middle[1])
    return bars(np.hypot(across, along * rng.uniform(0.6, 1.6)), rng)


def clouds(u: Array, v: Array, rng: Rng) -> Array:
    grid, fall = int(rng.integers(2, 8)), rng.uniform(0.4, 0.75)
    octaves = [fall**k * smooth(u.shape, grid * 2**k, rng) for k in range(int(rng.integers(2, 6)))]
    total = np.sum(octaves, 0)
    return edge(total - np.median(total), rng.uniform(0.3, 2.0))


def bricks(u: Array, v: Array, rng: Rng) -> Array:
    v = v * rng.uniform(1.6, 3.0)
    u = u + rng.choice([0.5, 0.33]) * np.floor(v)
    (shade,) = per_cell(u, v, rng)
    joint = rng.uniform(0.05, 0.12)
    inside = np.minimum(0.5 - from_center(u) - joint / 2, (0.5 - from_center(v) - joint) / 2)
    return edge(inside, rng.uniform(0.03, 0.12)) * (1 - rng.uniform(0, 0.7) * shade)


def waves(u: Array, v: Array, rng: Rng) -> Array:
    return bars(u + rng.uniform(0.25, 0.6) * np.sin(2 * np.pi * v * rng.uniform(0.3, 0.8)), rng)


def zigzag(u: Array, v: Array, rng: Rng) -> Array:
    return bars(u + rng.uniform(0.8, 2.2) * from_center(v * rng.uniform(0.4, 0.9)), rng)


def cells(u: Array, v: Array, rng: Rng) -> Array:
    area = max(6.0, float(np.ptp(u) * np.ptp(v)))
    low, high = (u.min(), v.min()), (u.max(), v.max())
    points = rng.uniform(low, high, (min(80, int(area * rng.uniform(0.8, 1.5))) + 3, 2))
    away = (u[..., None].astype(np.float32) - points[:, 0].astype(np.float32)) ** 2
    away = np.sqrt(away + (v[..., None].astype(np.float32) - points[:, 1].astype(np.float32)) ** 2)
    nearest = np.partition(away, 1, axis=-1)
    shade = rng.random(len(points))[away.argmin(-1)] * rng.uniform(0, 0.6)
    return edge(nearest[..., 1] - nearest[..., 0] - rng.uniform(0.05, 0.2), rng.uniform(0.05, 0.3)) * (1 - shade)


def marks(u: Array, v: Array, rng: Rng) -> Array:
    drawn = np.zeros(u.shape)
    length, width, order = rng.uniform(0.4, 0.9), rng.uniform(0.03, 0.1), rng.uniform(0, 1)
    for _ in range(min(90, int(float(np.ptp(u) * np.ptp(v)) * rng.uniform(1, 2.5)) + 6)):
        angle, tone = rng.normal(0, 0.1 + 2 * order), rng.uniform(0.5, 1)
        x, y = u - rng.uniform(u.min(), u.max()), v - rng.uniform(v.min(), v.max())
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        drawn = np.maximum(
            drawn, tone * edge(width - np.hypot(across, np.maximum(np.abs(along) - length / 2, 0)), 0.06)
        )
    return drawn


def crosses(u: Array, v: Array, rng: Rng) -> Array:
    u = u + 0.5 * (np.floor(v) % 2) * (rng.random() < 0.5)
    turn, size = per_cell(u, v, rng, 2)
    x, y = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    angle = rng.uniform(0, 0.8) * (turn - 0.5) + rng.choice([0, np.pi / 4])
    x, y = np.abs(x * np.cos(angle) + y * np.sin(angle)), np.abs(y * np.cos(angle) - x * np.sin(angle))
    arm = rng.uniform(0.3, 0.42) * (1 - 0.4 * rng.random() * size)
    return edge(np.minimum(rng.uniform(0.06, 0.14) - np.minimum(x, y), arm - np.maximum(x, y)), rng.uniform(0.04, 0.12))


def scales(u: Array, v: Array, rng: Rng) -> Array:
    """Round scales in rows that overlap, as on a fish or a roof: the nearer row covers the one behind."""
    v, drawn = v * 2, np.zeros(u.shape)
    rim, soft, fade = rng.uniform(0.08, 0.2), rng.uniform(0.05, 0.15), rng.uniform(0, 0.6)
    for behind in (2, 1, 0):
        row = np.floor(v) + 1 - behind
        along = u + 0.5 * (row % 2)
        away = np.hypot(along - np.floor(along) - 0.5, (v - row) / 2)
        inside = (away < 0.56) & (v >= row - 1.2)
        drawn = np.where(inside, edge(0.56 - rim - away, soft) * (1 - fade * away), drawn)
    return drawn


CLASSES: dict[str, Field] = {
    field.__name__: field
    for field in (bricks, cells, checks, clouds, crosses, dots, marks, rings, scales, stripes, waves, zigzag)
}


# A picture -------------------------------------------------------------------------------------------------------


def draw_texture(name: str, rng: Rng, size: int) -> Image.Image:
    """One picture of a class, RGB; its shorter side has at least so many pixels."""
    sides = (int(size * rng.uniform(1, LARGEST)), int(size * rng.uniform(1, LARGEST)))
    y, x = np.mgrid[: sides[0], : sides[1]] / min(sides) - 0.5
    if (bend := rng.uniform(-0.02, 0.07)) > 0:
        grid = int(rng.integers(2, 5))
        x, y = x + bend * smooth(sides, grid, rng), y + bend * smooth(sides, grid, rng)
    away = 1 + rng.uniform(-0.35, 0.35) * x + rng.uniform(-0.35, 0.35) * y  # seen at a slant
    x, y, angle, repeats = x / away, y / away, rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(np.log(3), np.log(9)))
    u, v = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    stretch = rng.uniform(0.8, 1.25)
    drawn = CLASSES[name](u * repeats * stretch + rng.uniform(8, 40), v * repeats / stretch + rng.uniform(8, 40), rng)
    picture = _paint(drawn, rng)
    if rng.random() < 0.5:
        covered, behind = _outside(x, y, rng), _backdrop(sides, rng)
        picture = covered[..., None] * behind + (1 - covered[..., None]) * picture
    light = 1 + rng.uniform(0, 0.45) * smooth(sides, 1, rng)[..., None]
    return _photograph(picture * light, rng)


def _paint(drawn: Array, rng: Rng) -> Array:
    """(H, W, 3), 0..1: a pattern in two colors that drift over the picture, of a contrast that may be small."""
    first = _color(rng)
    second = first + rng.uniform(0.4, 1) * (_color(rng) - first + (0.4 if first.mean() < 0.5 else -0.4))
    drift = [rng.uniform(0, 0.25) * smooth(drawn.shape, 2, rng)[..., None] * rng.uniform(-1, 1, 3) for _ in range(2)]
    return (1 - drawn[..., None]) * (first + drift[0]) + drawn[..., None] * (second + drift[1])


def _color(rng: Rng) -> Array:
    """Of any brightness, and seldom as pure as a screen can show."""
    return rng.uniform(0.1, 0.9) + rng.uniform(0, 0.8) * rng.uniform(-0.5, 0.5, 3)


def _outside(x: Array, y: Array, rng: Rng) -> Array:
    """1 where another thing is seen than the texture: around a disc, or beyond a slanted line."""
    if rng.random() < 0.5:
        away = np.hypot(x - rng.uniform(-0.15, 0.15), (y - rng.uniform(-0.15, 0.15)) * rng.uniform(0.8, 1.25))
        return edge(away - rng.uniform(0.38, 0.6), 0.02)
    angle = rng.uniform(0, 2 * np.pi)
    return edge(x * np.cos(angle) + y * np.sin(angle) - rng.uniform(0.12, 0.4), 0.02)


def _backdrop(sides: tuple[int, int], rng: Rng) -> Array:
    hue, grid = _color(rng), int(rng.integers(1, 12))
    return hue + rng.uniform(0, 0.4) * smooth(sides, grid, rng)[..., None] * rng.uniform(-1, 1, 3)


def _photograph(picture: Array, rng: Rng) -> Image.Image:
    """Out of focus, and with the grain of a sensor."""
    taken = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    blur = float(rng.choice([0, rng.uniform(0, 1), rng.uniform(0.5, 2.6)]))
    taken = taken.filter(ImageFilter.GaussianBlur(blur))
    grain = rng.normal(0, rng.uniform(0, 14), (*picture.shape[:2], 1)) + rng.normal(0, rng.uniform(0, 5), picture.shape)
    return Image.fromarray((np.asarray(taken) + grain).clip(0, 255).astype(np.uint8))


# A folder --------------------------------------------------------------------------------------------------------


def draw_labels(n: int, flip: float, seed: int) -> tuple[Array, Array]:
    """Given and true classes (N,) of n pictures; a share of the given ones is another class, each as likely."""
    rng = np.random.default_rng(seed)
    true = rng.permutation(np.arange(n) % len(CLASSES))
    given = true.copy()
    wrong = rng.choice(n, int(n * flip), replace=False)
    given[wrong] = (true[wrong] + rng.integers(1, len(CLASSES), len(wrong))) % len(CLASSES)
    return given, true


def write_textures(out: Path, n: int, flip: float, seed: int, size: int, suffix: str) -> int:
    """Write the pictures and the truth beside them. Returns how many are in the wrong folder."""
    given, true = draw_labels(n, flip, seed)
    names = list(CLASSES)

    def draw(i: int) -> Image.Image:
        return draw_texture(names[true[i]], np.random.default_rng([seed, i]), size)

    return write_folder(out, names, given, true, draw, suffix)


def write_folder(
    out: Path, names: Sequence[str], given: Array, true: Array, draw: Callable[[int], Image.Image], suffix: str = "png"
) -> int:
    """Write OUT/<given class>/<number> of every picture, and OUT.csv with path,label,true_label.

    Args:    names: of the classes; given, true: (N,) class of each picture; draw: the picture of a number
    Returns: how many are in the wrong folder
    """
    for name in names:
        (out / name).mkdir(parents=True)
    with open(f"{out}.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "true_label"])
        for i, (label, truth) in enumerate(zip(given, true, strict=True)):
            path = out / names[label] / f"{i:05d}.{suffix}"
            draw(i).save(path, quality=88)
            rows.writerow([path, names[label], names[truth]])
    return int((given != true).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--flip", type=float, default=0.08)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--format", choices=("png", "jpg"), default="png")
    given = parser.parse_args()
    if given.n < 1 or not 0 <= given.flip <= 1 or given.size < 8:
        parser.error(f"--n {given.n} --flip {given.flip} --size {given.size}; at least 1, 0 to 1, and at least 8")
    if given.out.exists():
        parser.error(f"{given.out} is there already; name a new folder")
    wrong = write_textures(given.out, given.n, given.flip, given.seed, given.size, given.format)
    print(f"{given.n} images in {given.out}, {wrong} in the wrong folder; the truth is in {given.out}.csv")


if __name__ == "__main__":
    main()
