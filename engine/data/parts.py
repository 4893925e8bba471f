"""What a source gives: classes, and per split the labels, the place and the picture of every sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from engine.errors import SourceError

Labels = np.ndarray[Any, np.dtype[np.int64]]
Vector = np.ndarray[Any, np.dtype[np.float32]]

TEST_NAMES = ("test", "val", "valid", "validation")
"""What a test split is called, the most wanted first."""


@dataclass(frozen=True)
class Part:
    """One split of a source.

    labels: (N,) int64; places: where each sample is, for people; load: sample i as an image, opened but not
    necessarily decoded, or as a float32 vector (D,). `load` is called from several threads. ignored: files
    that are there but are no samples, with the reason.
    """

    labels: Labels
    places: Sequence[str]
    load: Callable[[int], Image.Image | Vector]
    ignored: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, positions: Labels) -> Part:
        """The samples at some positions, in that order."""
        load, places = self.load, self.places
        return replace(
            self,
            labels=self.labels[positions],
            places=[places[i] for i in positions],
            load=lambda i: load(int(positions[i])),
        )


@dataclass(frozen=True)
class Source:
    """Everything a source holds. test_fraction: what is split off for testing when it has no test split."""

    classes: tuple[str, ...]
    train: Part
    test: Part | None = None
    test_fraction: float = 0.2


def name_classes(values: Sequence[str]) -> tuple[str, ...]:
    """The classes behind labels that come without a list of names: in numeric order if all are whole numbers."""
    distinct = set(values)
    if all(value.isdecimal() for value in distinct):
        return tuple(sorted(distinct, key=int))
    return tuple(sorted(distinct))


def label_indices(values: Sequence[str], classes: Sequence[str], where: str) -> Labels:
    """The index (N,) of each value in the classes.

    Raises: SourceError naming the row (from 0) of the first value that is no class.
    """
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index.get(value, -1) for value in values], np.int64)
    unknown = np.flatnonzero(labels < 0)
    if len(unknown):
        row = int(unknown[0])
        shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise SourceError(f"{where}, row {row}: label '{values[row]}' is none of the classes ({shown})")
    return labels


def rename_labels(part: Part, names: Sequence[str], classes: Sequence[str], where: str) -> Part:
    """A part whose labels count in `names`, with labels that count in `classes` instead."""
    used = np.unique(part.labels)
    by_name = {name: i for i, name in enumerate(classes)}
    unknown = [names[i] for i in used if names[i] not in by_name]
    if unknown:
        raise SourceError(f"{where}: class '{unknown[0]}' is in the test split and not in the training split")
    mapping = np.array([by_name.get(name, -1) for name in names], np.int64)
    return replace(part, labels=mapping[part.labels])
