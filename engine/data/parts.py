"""What a source gives: classes, and per split the labels, the place and the picture of every sample."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from engine.errors import SourceError

Labels = np.ndarray[Any, np.dtype[np.int64]]
Vector = np.ndarray[Any, np.dtype[np.float32]]

TEST_NAMES = ("test", "val", "valid", "validation")
"""What the samples are called that no network is trained on: all of them together are the test split."""

MOST_CLASSES = 32_767
"""The views hold a class as a SMALLINT."""
_MOST_CHARACTERS = 1_000
"""Of the name of a class."""


@dataclass(frozen=True)
class Part:
    """One split of a source.

    labels: (N,) int64; places: where each sample is: an absolute path, or <source>:<index in the source>; load:
    sample i as an image, opened but not necessarily decoded, or as a float32 vector (D,). `load` is called from
    several threads. ignored: files that are there but are no samples, with the reason. true_labels: (N,) int64, -1
    where unknown; None = all unknown. metadata: per name the text of each sample, None where it has none.
    """

    labels: Labels
    places: Sequence[str]
    load: Callable[[int], Image.Image | Vector]
    ignored: tuple[tuple[str, str], ...] = ()
    true_labels: Labels | None = None
    metadata: Mapping[str, Sequence[str | None]] = field(default_factory=dict)

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
            true_labels=None if self.true_labels is None else self.true_labels[positions],
            metadata={name: [values[i] for i in positions] for name, values in self.metadata.items()},
        )


def joined(parts: Sequence[Part]) -> Part:
    """Several parts of one source, one after the other."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def load(i: int) -> Image.Image | Vector:
        part = int(np.searchsorted(starts, i, side="right")) - 1
        return parts[part].load(i - int(starts[part]))

    known = any(part.true_labels is not None for part in parts)
    names = dict.fromkeys(name for part in parts for name in part.metadata)
    return Part(
        labels=np.concatenate([part.labels for part in parts]),
        places=[place for part in parts for place in part.places],
        load=load,
        ignored=tuple(one for part in parts for one in part.ignored),
        true_labels=np.concatenate([truth_of(part) for part in parts]) if known else None,
        metadata={n: [v for part in parts for v in part.metadata.get(n, [None] * len(part))] for n in names},
    )


def truth_of(part: Part) -> Labels:
    """The true labels (N,) int64 of a part, -1 where unknown."""
    return np.full(len(part), -1, np.int64) if part.true_labels is None else part.true_labels


@dataclass(frozen=True)
class Source:
    """Everything a source holds. test_fraction: what is split off for testing when it has no test split, and nobody
    says how much; notes: what a person should know of how it was read, each a few words."""

    classes: tuple[str, ...]
    train: Part
    test: Part | None = None
    test_fraction: float = 0.2
    notes: tuple[str, ...] = ()


def name_classes(values: Sequence[str], where: str) -> tuple[str, ...]:
    """The classes behind labels that come without a list of names: in numeric order if all are whole numbers.

    Raises: SourceError as `check_classes`
    """
    distinct = set(values)
    check_classes(distinct, where)
    if all(value.isdecimal() for value in distinct):
        return tuple(sorted(distinct, key=lambda value: (int(value), value)))
    return tuple(sorted(distinct))


def check_classes(names: Collection[str], where: str) -> None:
    """Raise SourceError when there are more classes than can be held, or one has a text for a name."""
    if len(names) > MOST_CLASSES:
        raise SourceError(
            f"{where} has {len(names):,} classes; allowed: {MOST_CLASSES:,} (is the label column the right one?)"
        )
    longest = max(names, key=len, default="")
    if len(longest) > _MOST_CHARACTERS:
        raise SourceError(
            f"{where} has a label of {len(longest):,} characters, '{longest[:20]}...'; allowed: {_MOST_CHARACTERS:,}"
        )
    if any("\0" in name for name in names):
        raise SourceError(f"{where} has a label with a zero byte; write it again")


def alike(names: Collection[str]) -> list[str]:
    """Names that look the same as one before: they differ by how Unicode composes their letters, as macOS writes them."""
    first: dict[str, str] = {}
    return [name for name in names if first.setdefault(unicodedata.normalize("NFC", name), name) != name]


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
    truth = truth_of(part)
    used = np.unique(np.concatenate([part.labels, truth[truth >= 0]]))
    by_name = {name: i for i, name in enumerate(classes)}
    unknown = [names[i] for i in used if names[i] not in by_name]
    if unknown:
        raise SourceError(f"{where}: class '{unknown[0]}' is in the test split and not in the training split")
    mapping = np.array([*(by_name.get(name, -1) for name in names), -1], np.int64)  # the last is that of the unknown
    return replace(part, labels=mapping[part.labels], true_labels=None if part.true_labels is None else mapping[truth])
