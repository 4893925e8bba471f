"""`winnow ingest --add`: what is new in a source, added to a dataset that is there. What is in it is copied, not read.

The dataset file is written anew and put in its place at once. Training samples keep their ids, the new ones follow them,
and the test samples come after those. Runs are of the data they were computed on, so those of before are of an earlier
version; decisions and stored features are kept by the content of an image and find it again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from engine.data.columns import parse_wanted
from engine.data.dataset_file import DatasetWriter, Record, fetch_one, has_table, read_blocks, reading
from engine.data.decoding import Decoded, Form
from engine.data.parts import Labels, Part, Source, truth_of
from engine.data.request import IngestSpec
from engine.data.sources import open_source
from engine.data.splits import stratified
from engine.data.writing import Report, together, write_part, wrong_rate
from engine.errors import BusyError, SpecError
from engine.store.contents import content_of, find_contents
from engine.store.decision_file import carry_over
from engine.store.jobs import fetch_jobs
from engine.store.trust import Roots
from engine.store.workspace import Workspace

HELD_OUT = "held_out"
"""In the stored spec of a dataset: the share that was held out for testing, 0 where the source has a test part."""

MOVED = "moved since: the image is there already, with the label of its earlier place"
_MAY_DIFFER = ("source", "test", "skip_bad", "columns", "metadata")


@dataclass(frozen=True)
class _Held:
    """What a dataset holds. labels, true_labels (N + M,), the first `train` of them for training."""

    fingerprint: str
    shape: tuple[int, ...]
    dtype: str
    spec: dict[str, Any]
    source: str
    classes: list[str]
    labels: Labels
    true_labels: Labels
    train: int
    places: list[str]
    metadata: dict[str, list[str | None]]
    skipped: list[tuple[str, str]]
    versions: list[tuple[str, int, int]]


def add_samples(workspace: Workspace, spec: IngestSpec, report: Report, within: Roots) -> tuple[int, tuple[str, ...]]:
    """Add the samples of a source whose places are not in the dataset of that name. within: below what its files must lie.

    A file that was moved since (its image is there, the place it came from is gone) is left out.
    Returns: how many were added, and what a person should know of how the source was read
    Raises:  SpecError when the dataset is no plain reading of a source, or other options are given than it was made with;
             BusyError while a run of it is being computed; what `ingest` raises
    """
    path = workspace.require_dataset(spec.name)
    held = _fetch(path)
    _check(held, spec)
    busy = [job.run_id for job in fetch_jobs(workspace, spec.name) if job.state == "running"]
    if busy:
        raise BusyError(
            f"run {busy[0]} of dataset '{spec.name}' is being computed; wait for it, or winnow cancel {busy[0]}"
        )
    report("reading", 0, 1)
    source = open_source(spec.source, spec.seed, spec.test, parse_wanted(spec.columns, spec.metadata), within)
    classes, train, test = _new_parts(held, source, spec.seed)
    if not len(train) + len(test):
        return 0, (f"nothing is new in {spec.source}",)
    carry_over(workspace)
    form = Form(held.shape, held.dtype)
    is_moved = _Moved(path, held.places)
    skipped = [*source.train.ignored, *(source.test.ignored if source.test else ())]
    bad: list[tuple[str, str]] = []
    old, total = len(held.labels), len(held.labels) + len(train) + len(test)
    notes = source.notes
    with (
        contextlib.suppress(_NothingNew),
        workspace.building_dataset(spec.name) as temp,
        reading(path) as connection,
        DatasetWriter(temp, held.shape, held.dtype) as writer,
    ):
        if fetch_one(connection, "SELECT fingerprint FROM dataset")[0] != held.fingerprint:
            raise BusyError(
                f"dataset '{spec.name}' was changed by another process just now; run the same command again"
            )

        def write(part: Part, first: int, before: int) -> Part:
            """Copy the old samples of a split, then add its new ones."""
            count = held.train if first == 0 else old - held.train
            _copy(connection, writer, held, first, count)
            progress = lambda n: report("images", before + count + n, total)  # noqa: E731
            kept = write_part(writer, part, form, spec.skip_bad, bad, progress, lambda block: is_moved(block, part))
            writer.end_split()
            return part.subset(kept)

        train = write(train, 0, 0)
        test = write(test, held.train, held.train + len(train))
        if not len(train) + len(test):
            notes = (f"nothing is new in {spec.source}: {len(is_moved.places):,} moved, {len(bad):,} unreadable",)
            raise _NothingNew
        moved = [(place, MOVED) for place in is_moved.places]
        again = {place for place, _ in [*skipped, *bad]} | {*train.places, *test.places, *is_moved.places}
        writer.add_skipped([*(one for one in held.skipped if one[0] not in again), *skipped, *bad, *moved])
        report("writing", 0, 1)
        _finish(writer, held, spec, classes, train, test)
    return len(train) + len(test), notes


class _NothingNew(Exception):
    """Leaves the dataset as it is."""


def _fetch(path: Path) -> _Held:
    with reading(path) as connection:
        fingerprint, shape, dtype, text, source, parent, noise = fetch_one(
            connection, "SELECT fingerprint, input_shape, input_dtype, spec, source, parent, noise FROM dataset"
        )
        rows = connection.execute(
            "SELECT label, coalesce(true_label, -1), split = 'train', source FROM samples ORDER BY sample_id"
        ).fetchall()
        metadata: dict[str, list[str | None]] = {}
        if has_table(connection, "metadata"):
            for sample_id, name, value in connection.execute("SELECT sample_id, name, value FROM metadata").fetchall():
                metadata.setdefault(name, [None] * len(rows))[sample_id] = value
        versions = []
        if has_table(connection, "versions"):
            versions = connection.execute("SELECT fingerprint, train, test FROM versions").fetchall()
        return _Held(
            *(fingerprint, tuple(shape), dtype, json.loads(text) | {"parent": parent, "noise": noise}, source),
            classes=[r[0] for r in connection.execute("SELECT class_name FROM classes ORDER BY label").fetchall()],
            labels=np.array([row[0] for row in rows], np.int64),
            true_labels=np.array([row[1] for row in rows], np.int64),
            train=sum(row[2] for row in rows),
            places=[row[3] for row in rows],
            metadata=metadata,
            skipped=connection.execute("SELECT source, reason FROM skipped").fetchall(),
            versions=[(str(one[0]), int(one[1]), int(one[2])) for one in versions],
        )


def _check(held: _Held, spec: IngestSpec) -> None:
    """Refuse what cannot be added to, or would make another dataset of it."""
    name = f"dataset '{spec.name}'"
    for option in ("parent", "noise", "labels", "limit"):
        if held.spec.get(option) is not None:
            what = "derives from another" if option == "parent" else f"was made with --{option}"
            raise SpecError(f"{name} {what}; --add goes with a dataset that is a source as it is: ingest another name")
    plain = IngestSpec(spec.name, spec.source).to_json()
    for key, value in spec.to_json().items():
        if key not in _MAY_DIFFER and value not in (plain[key], held.spec.get(key)):
            flag = f"--{key.replace('_', '-')}"
            raise SpecError(
                f"{flag} is {value}; {name} was made with {held.spec.get(key)}: leave it out, or ingest another name"
            )


def _new_parts(held: _Held, source: Source, seed: int) -> tuple[list[str], Part, Part]:
    """The classes, and the new samples of both splits, whose labels count in them: new classes follow the old ones."""
    known = set(held.places)

    def new(part: Part) -> Part:
        return part.subset(np.array([i for i, place in enumerate(part.places) if place not in known], np.int64))

    train = new(source.train)
    test = train.subset(np.empty(0, np.int64)) if source.test is None else new(source.test)
    if source.test is None:
        share = held.spec.get(HELD_OUT, 0.0 if held.train == len(held.labels) else 1 - held.train / len(held.labels))
        chosen = stratified(train.labels, round(share * len(train)), seed) if len(train) else np.empty(0, np.int64)
        test, train = train.subset(chosen), train.subset(np.setdiff1d(np.arange(len(train)), chosen))
    used = np.unique(np.concatenate([array for p in (train, test) for array in (p.labels, truth_of(p))]))
    classes = [*held.classes, *(source.classes[i] for i in used if i >= 0 and source.classes[i] not in held.classes)]
    index = {name: i for i, name in enumerate(classes)}
    mapping = np.array([*(index.get(name, -1) for name in source.classes), -1], np.int64)
    return classes, _mapped(train, mapping), _mapped(test, mapping)


def _mapped(part: Part, mapping: Labels) -> Part:
    truth = None if part.true_labels is None else mapping[part.true_labels]
    return Part(mapping[part.labels], part.places, part.load, part.ignored, truth, part.metadata)


class _Moved:
    """Which decoded samples are images of the dataset whose own place is gone; their new places are kept in `places`."""

    def __init__(self, path: Path, old_places: Sequence[str]) -> None:
        self._path, self._old_places = path, old_places
        self.places: list[str] = []

    def __call__(self, block: Decoded, part: Part) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        contents = [content_of(one.tobytes()).hex() for one in block.inputs]
        found = find_contents(self._path, contents)
        gone = {
            c for c, i in zip(found["content"], found["sample_id"], strict=True) if not _exists(self._old_places[i])
        }
        self.places += [part.places[i] for i, c in zip(block.positions, contents, strict=True) if c in gone]
        return np.array([content not in gone for content in contents], bool)


def _exists(place: str) -> bool:
    """Whether the file of a place is there: the path itself, or what stands before an index."""
    return os.path.exists(place) or os.path.exists(place.rpartition(":")[0])


def _copy(connection: duckdb.DuckDBPyConnection, writer: DatasetWriter, held: _Held, first: int, count: int) -> None:
    """Append the inputs and thumbnails of some samples as they are, without decoding."""
    for start, n, data in read_blocks(connection, first, count):
        rows = connection.execute(
            "SELECT thumbnail FROM thumbnails WHERE sample_id BETWEEN ? AND ? ORDER BY sample_id",
            [start, start + n - 1],
        ).fetchall()
        writer.append(np.frombuffer(data, held.dtype).reshape(n, *held.shape), [row[0] for row in rows])


def _finish(writer: DatasetWriter, held: _Held, spec: IngestSpec, classes: list[str], train: Part, test: Part) -> None:
    """Write everything but the inputs: of the old and the new training samples, then of the old and new test samples."""
    n, old = held.train, len(held.labels)

    def in_order(values: Any, of_train: Any, of_test: Any) -> Any:
        return np.concatenate([values[:n], of_train, values[n:], of_test])

    labels = in_order(held.labels, train.labels, test.labels)
    truth = in_order(held.true_labels, truth_of(train), truth_of(test))
    of_splits = [{name: values[a:b] for name, values in held.metadata.items()} for a, b in ((0, n), (n, old))]
    parts = [of_splits[0], train.metadata, of_splits[1], test.metadata]
    writer.add_metadata(together(parts, [n, len(train), old - n, len(test)]))
    writer.add_versions([*held.versions, (held.fingerprint, n, old - n)])
    all_train = n + len(train)
    stored = {key: value for key, value in held.spec.items() if key != "parent"}
    record = Record(
        *(spec.name, stored, held.source, None), noise_rate=wrong_rate(labels[:all_train], truth[:all_train])
    )
    places = [*held.places[:n], *train.places, *held.places[n:], *test.places]
    writer.finish(record, classes, labels, truth, all_train, places)
