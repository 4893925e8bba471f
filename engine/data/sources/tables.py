"""From the columns of a table to a source: what CSV and Parquet files have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.data.columns import Chosen, as_text, is_test, metadata_texts, named_classes, true_indices
from engine.data.parts import Part, Source, Vector, label_indices, name_classes
from engine.data.sources.places import open_original
from engine.errors import SourceError
from engine.store.trust import Roots


@dataclass(frozen=True)
class Table:
    """A table that was read. where: its file, for messages; columns: name -> values; places, load: of each row, as those of
    a `Part`; classes: their names, () = those of the labels."""

    where: str
    columns: Mapping[str, Sequence[Any]]
    chosen: Chosen
    places: Sequence[str]
    load: Callable[[int], Image.Image | Vector]
    classes: tuple[str, ...] = ()


def table_of_paths(
    where: str, folder: Path, columns: Mapping[str, Sequence[Any]], chosen: Chosen, within: Roots
) -> Table:
    """A table with a column of paths. Relative ones start at `folder`; a place that an export wrote is one, too.

    within: below what they must lie to be opened
    """
    places = []
    for row, value in enumerate(columns[chosen.roles["path"]]):
        if not isinstance(value, str) or not value or "\0" in value:
            raise SourceError(f"{where}, row {row}: the path is {'empty' if not value else repr(value)[:50]}")
        at = os.path.abspath(folder / value)
        places.append(value if not os.path.exists(at) and _is_row(value) else at)
    within = replace(within, suggestion=_common_folder(places, within))
    return Table(where, columns, chosen, places, lambda i: open_original(places[i], within))


def _common_folder(places: Sequence[str], within: Roots) -> str:
    """The folder that holds all places outside of what may be read; "" where they have none but the root in common."""
    folders = {os.path.dirname(place) for place in places if os.path.isabs(place)}
    outside = [folder for folder in folders if not within.cover(folder)]
    try:
        common = os.path.commonpath(outside)
    except ValueError:  # of no folder, or of folders on several drives
        return ""
    return "" if common == os.path.dirname(common) else common


def _is_row(place: str) -> bool:
    """Whether a place is a row of something: `digits:5`, or an absolute path with an index."""
    text, _, index = place.rpartition(":")
    return index.isdecimal() and (os.path.isabs(text) or "/" not in text and "." not in text)


def read_table(table: Table) -> Source:
    """The source that a table describes: its split column decides what is for testing, if it has one.

    Raises: SourceError naming the row (from 0) of the first value that cannot be taken
    """
    where, roles, columns = table.where, table.chosen.roles, table.columns
    labels = _labels(table)
    tests = np.zeros(len(labels), bool)
    metadata = metadata_texts(where, columns, table.chosen)
    if "split" in roles:
        splits = [as_text(value) or "" for value in columns[roles["split"]]]
        tests = np.array([is_test(split, where, row) for row, split in enumerate(splits)], bool)
        if len(kinds := {split.strip().lower() for split, test in zip(splits, tests, strict=True) if test}) > 1:
            metadata.setdefault("source_split", [split.strip().lower() for split in splits])
    if tests.all():
        raise SourceError(f"{where} has no training rows; it needs rows, and a split column must say train for some")
    classes, numbers, named = _classes(table, labels, tests)
    if named:
        labels = [classes[numbers[label]] for label in labels]
        metadata.pop("column_class_name", None)
    truth = None
    if "true_label" in roles:
        texts = [(as_text(value) or "").strip() for value in columns[roles["true_label"]]]
        truth = true_indices(texts, classes, numbers, where)
        truth = truth if (truth >= 0).any() else None
    everything = Part(
        label_indices(labels, classes, where), table.places, table.load, true_labels=truth, metadata=metadata
    )
    if "split" not in roles:
        return Source(classes, everything)
    train, test = (everything.subset(np.flatnonzero(tests == which)) for which in (False, True))
    if not len(test):
        return Source(classes, train, test_fraction=0, notes=(f"column '{roles['split']}' calls all samples train",))
    note = f"{' and '.join(sorted(kinds))} of column '{roles['split']}' are the test part" if len(kinds) > 1 else ""
    return Source(classes, train, test, notes=(note,) if note else ())


def _labels(table: Table) -> list[str]:
    """The label of each row as text; SourceError for one that is missing."""
    labels = []
    for row, value in enumerate(table.columns[table.chosen.roles["label"]]):
        if value is None or value == -1 or value != value:
            raise SourceError(f"{table.where}, row {row}: no label ({value}); leave this split out or label it")
        if isinstance(value, int) and table.classes:
            if not 0 <= value < len(table.classes):
                last = len(table.classes) - 1
                raise SourceError(f"{table.where}, row {row}: label {value}; the file names classes 0 to {last}")
            value = table.classes[value]
        elif not isinstance(value, int | str):
            column = table.chosen.roles["label"]
            raise SourceError(f"{table.where}, row {row}: column '{column}' is neither a whole number nor text")
        if value == "":
            raise SourceError(f"{table.where}, row {row}: the label is empty")
        labels.append(str(value))
    return labels


def _classes(
    table: Table, labels: Sequence[str], tests: np.ndarray[Any, Any]
) -> tuple[tuple[str, ...], dict[str, int], bool]:
    """The classes, the one that each number means, and whether the labels are such numbers, with names beside them."""
    if table.classes:
        return table.classes, {str(i): i for i in range(len(table.classes))}, False
    if "class_name" in table.chosen.names:
        given, names = [*labels], [as_text(name) or "" for name in table.columns["class_name"]]
        if "true_class_name" in table.chosen.names and "true_label" in table.chosen.roles:
            true_labels = (as_text(value) or "" for value in table.columns[table.chosen.roles["true_label"]])
            for value, name in zip(true_labels, table.columns["true_class_name"], strict=True):
                if value and name:
                    given.append(value.removesuffix(".0"))
                    names.append(str(name))
        if found := named_classes(given, names):
            return tuple(found.values()), {number: i for i, number in enumerate(found)}, True
    classes = name_classes([label for label, test in zip(labels, tests, strict=True) if not test], table.where)
    return classes, {str(i): i for i in range(len(classes))}, False
