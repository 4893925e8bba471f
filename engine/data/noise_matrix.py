"""The file of `--noise matrix:FILE`: what share of each class is labeled as which class."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.data.noise import Matrix, parse_noise
from engine.data.sources.kinds import expanded
from engine.errors import SourceError, SpecError

SUFFIXES = (".csv", ".npy")

SLACK = 1e-4
"""By which the sum of a row may differ from 1: float32 numbers do."""

CELL_BYTES = 64
"""Of a CSV, at most: a larger file holds something else."""


def matrix_file(text: str) -> Path:
    """The file of a matrix; SpecError for another kind of file."""
    path = Path(expanded(text))
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(
            f"noise 'matrix' names '{text[:200]}'; write matrix:FILE with a CSV or .npy file of C x C numbers"
        )
    return path


def matrix_files(noise: str) -> list[Path]:
    """The files that a noise names; SpecError as `parse_noise`, and for another kind of file."""
    return [matrix_file(value) for _, value in parse_noise(noise) if isinstance(value, str)]


def resolve_noise(noise: str) -> str:
    """A noise as it is stored and compared: as it was written, with paths made absolute where it names files."""
    if not matrix_files(noise):
        return noise
    steps = [
        (kind, matrix_file(value).resolve() if isinstance(value, str) else value) for kind, value in parse_noise(noise)
    ]
    return "+".join(f"{kind}:{value}" for kind, value in steps)


def read_matrices(noise: str, class_names: Sequence[str]) -> dict[str, Matrix]:
    """Every matrix of a noise, by its file as it is written there: `read_matrix`."""
    return {value: read_matrix(value, class_names) for _, value in parse_noise(noise) if isinstance(value, str)}


def read_matrix(text: str, class_names: Sequence[str]) -> Matrix:
    """A matrix (C, C) float64: row = the class, column = what share of it gets which label, both in label order.

    Raises: SpecError for another kind of file; SourceError for one that is not there, of another shape, or with a row that
            holds no number, a negative one, or does not add up to 1
    """
    path, classes = matrix_file(text), len(class_names)
    if not path.is_file():
        raise SourceError(
            f"there is no {path} (--noise matrix); give a CSV or .npy file of {classes} x {classes} numbers"
        )
    rows = _read_npy(path, classes) if path.suffix.lower() == ".npy" else _read_csv(path, classes)
    for number, (name, row) in enumerate(zip(class_names, rows, strict=True)):
        where = f"{path}, row {number} ('{name[:200]}')"
        if not np.isfinite(row).all():
            raise SourceError(
                f"{where}: column {int(np.argmin(np.isfinite(row)))} is no number; give shares from 0 to 1"
            )
        if (row < 0).any():
            raise SourceError(f"{where}: column {int(row.argmin())} is {row.min():g}; allowed: shares from 0 to 1")
        if abs(row.sum() - 1) > SLACK:
            raise SourceError(f"{where}: the shares add up to {row.sum():g}; allowed: 1")
    return rows


def _read_npy(path: Path, classes: int) -> Matrix:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # of a wrong shape nothing is read
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"{path} is no .npy file of numbers ({error}); write it with numpy.save") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise SourceError(f"{path} holds no array of numbers; write it with numpy.save")
    if found.shape != (classes, classes):
        shape = " x ".join(map(str, found.shape)) or "a single number"
        raise SourceError(
            f"{path} has the shape {shape}; the dataset has {classes} classes: give {classes} x {classes}"
        )
    return np.array(found, np.float64)


def _read_csv(path: Path, classes: int) -> Matrix:
    if path.stat().st_size > CELL_BYTES * classes * classes + CELL_BYTES:
        raise SourceError(f"{path} is too large to be {classes} x {classes} numbers, one for each pair of classes")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is no CSV of numbers ({error}); write numbers separated by commas") from error
    if len(rows) != classes:
        raise SourceError(f"{path} has {len(rows)} rows; the dataset has {classes} classes: give {classes} x {classes}")
    short = next((i for i, row in enumerate(rows) if len(row) != classes), None)
    if short is not None:
        raise SourceError(f"{path}, row {short} has {len(rows[short])} columns; the dataset has {classes} classes")
    return np.array([[_number(cell) for cell in row] for row in rows], np.float64)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
