"""`winnow ingest`: a source, or another dataset, made into a dataset file of the workspace."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.data.dataset_file import DatasetWriter, Record, fetch_one, reading
from engine.data.decoding import choose_form, decode_in_order
from engine.data.label_column import read_labels, split_labels
from engine.data.noise import apply_noise, superclasses_of
from engine.data.parts import Labels, Part
from engine.data.request import IngestSpec
from engine.data.sources import open_source
from engine.data.splits import stratified
from engine.errors import BusyError, SourceError, SpecError
from engine.fields import options_of
from engine.store.workspace import Workspace

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class IngestResult:
    """What came of it. train, test, skipped: samples; noise_rate: share of wrong training labels, None = unknown;
    existed: the dataset was there already and nothing was done."""

    name: str
    fingerprint: str
    train: int
    test: int
    classes: int
    noise_rate: float | None
    skipped: int
    seconds: float
    existed: bool


@dataclass(frozen=True)
class _Relabeled:
    """Given and true labels of the training samples, and what was done to the given ones."""

    labels: Labels
    true_labels: Labels | None
    noise: str | None


def ingest(workspace: Workspace, spec: IngestSpec, report: Report | None = None) -> IngestResult:
    """Make the dataset, or find it: the same spec given twice is done once.

    Args:    report: called with (stage, done, total), at most ten times a second
    Raises:  SpecError when the name is taken by something else; SourceError when the source is missing or
             malformed; BadSampleError, a SourceError, at a sample that cannot be read; StorageError when the
             disk refuses. Nothing is left behind by any of them.
    """
    started = time.monotonic()
    found = _find(workspace, spec, started)
    if found:
        return found
    if spec.parent is not None:
        _derive(workspace, spec, _throttled(report))
    else:
        _read(workspace, spec, _throttled(report))
    return _result(workspace, spec.name, started, existed=False)


def _find(workspace: Workspace, spec: IngestSpec, started: float) -> IngestResult | None:
    """The dataset of that name if it was made by the same spec; SpecError if it is another one."""
    if spec.name not in workspace.datasets():
        return None
    with reading(workspace.dataset_path(spec.name)) as connection:
        text, parent_fingerprint = fetch_one(connection, "SELECT spec, parent_fingerprint FROM dataset")
    old, new = json.loads(text), spec.to_json()
    introduced = {name: declared.introduced for name, (_, declared) in options_of(IngestSpec).items()}
    differs = [key for key in new if old.get(key, introduced.get(key)) != new[key]]
    advice = f"choose another name, or remove it first (winnow remove {spec.name})"
    if differs:
        key = differs[0]
        raise SpecError(f"dataset '{spec.name}' exists, made with {key} {old.get(key)}, not {new[key]}; {advice}")
    if spec.parent is not None and spec.parent in workspace.datasets():
        with reading(workspace.dataset_path(spec.parent)) as connection:
            (now,) = fetch_one(connection, "SELECT fingerprint FROM dataset")
        if now != parent_fingerprint:
            raise SpecError(f"dataset '{spec.name}' derives from an earlier '{spec.parent}'; {advice}")
    return _result(workspace, spec.name, started, existed=True)


def _result(workspace: Workspace, name: str, started: float, existed: bool) -> IngestResult:
    with reading(workspace.dataset_path(name)) as connection:
        fingerprint, rate = fetch_one(connection, "SELECT fingerprint, noise_rate FROM dataset")
        train, test, classes, skipped = fetch_one(
            connection,
            "SELECT (SELECT count(*) FROM samples WHERE split = 'train'), (SELECT count(*) FROM samples WHERE "
            "split = 'test'), (SELECT count(*) FROM classes), (SELECT count(*) FROM skipped)",
        )
    seconds = time.monotonic() - started
    return IngestResult(name, fingerprint, train, test, classes, rate, skipped, seconds, existed)


def _read(workspace: Workspace, spec: IngestSpec, report: Report) -> None:
    """Read a source of images or vectors."""
    report("reading", 0, 1)
    source = open_source(spec.source, spec.seed, spec.test)
    replaced = None if spec.labels is None else read_labels(spec.labels, source.classes, len(source.train))
    if source.test is not None and spec.test_fraction:
        raise SpecError(
            f"{spec.source} has a test split of its own ({len(source.test)} samples); leave out --test-fraction"
        )
    train, test = np.arange(len(source.train)), np.empty(0, np.int64)
    test_part = source.test
    if test_part is None:
        fraction = source.test_fraction if spec.test_fraction is None else spec.test_fraction
        test = stratified(source.train.labels, round(fraction * len(train)), spec.seed, keep_one=True)
        train = np.setdiff1d(train, test)
        if replaced is not None and spec.true_labels == "drop":
            test_part = replace(source.train, labels=replaced).subset(test)
        else:
            test_part = source.train.subset(test)
    if spec.limit is not None and spec.limit < len(train):
        test_count = round(len(test_part) * spec.limit / len(train))
        train = train[stratified(source.train.labels[train], spec.limit, spec.seed)]
        test_part = test_part.subset(stratified(test_part.labels, test_count, spec.seed))
    train_part = source.train.subset(train)
    form = choose_form(train_part, spec.image_size)
    total = len(train_part) + len(test_part)
    skipped = [*source.train.ignored, *(source.test.ignored if source.test else ())]

    with (
        _building(workspace, spec.name) as path,
        DatasetWriter(path, form.shape, form.dtype) as writer,
    ):

        def write(part: Part, before: int) -> Labels:
            kept = []
            for block in decode_in_order(part, form, spec.skip_bad, lambda n: report("images", before + n, total)):
                writer.append(block.inputs, block.thumbnails, block.properties)
                kept.append(block.positions)
                skipped.extend(block.bad)
            writer.end_split()
            return np.concatenate(kept) if kept else np.empty(0, np.int64)

        kept_train = write(train_part, 0)
        kept_test = write(test_part, len(train_part))
        if not len(kept_train):
            raise SourceError(f"{spec.source}: none of the {len(train_part)} training samples can be read")
        old = train_part.labels[kept_train]
        new = None if replaced is None else replaced[train][kept_train]
        done = _relabel(spec, old, None, new, source.classes)
        writer.add_skipped(skipped)
        report("writing", 0, 1)
        _finish(
            writer,
            Record(spec.name, spec.to_json(), spec.source, done.noise, _wrong_rate(done)),
            source.classes,
            done,
            test_part.labels[kept_test],
            [*(train_part.places[i] for i in kept_train), *(test_part.places[i] for i in kept_test)],
        )


def _derive(workspace: Workspace, spec: IngestSpec, report: Report) -> None:
    """Copy another dataset's samples and images under the same ids, with other labels."""
    name = spec.parent or ""
    parent = workspace.require_dataset(name)
    with reading(parent) as connection:
        fingerprint, shape, dtype, noise = fetch_one(
            connection, "SELECT fingerprint, input_shape, input_dtype, noise FROM dataset"
        )
        classes = [row[0] for row in connection.execute("SELECT class_name FROM classes ORDER BY label").fetchall()]
        rows = connection.execute(
            "SELECT label, coalesce(true_label, -1) AS true_label, split = 'train' AS is_train FROM samples "
            "ORDER BY sample_id"
        ).fetchnumpy()
        places = [row[0] for row in connection.execute("SELECT source FROM samples ORDER BY sample_id").fetchall()]
    labels, truth = (np.asarray(rows[c], np.int64) for c in ("label", "true_label"))
    train = int(np.asarray(rows["is_train"]).sum())
    known = None if (truth < 0).any() else truth[:train]
    new = None if spec.labels is None else read_labels(spec.labels, classes, train)
    done = _relabel(spec, labels[:train], known, new, classes)
    if new is None and noise is not None:
        done = replace(done, noise=f"{noise}+{done.noise}")
    with (
        _building(workspace, spec.name) as path,
        DatasetWriter(path, tuple(shape), dtype) as writer,
    ):
        report("copying", 0, len(labels))
        writer.copy_samples(parent)
        report("copying", len(labels), len(labels))
        record = Record(
            *(spec.name, spec.to_json(), spec.source, done.noise, _wrong_rate(done)),
            parent=name,
            parent_fingerprint=fingerprint,
        )
        _finish(writer, record, classes, done, labels[train:], places)


@contextlib.contextmanager
def _building(workspace: Workspace, name: str) -> Iterator[Path]:
    """A path to write the dataset to, unless another process made one of that name since we looked."""
    with workspace.building_dataset(name) as path:
        if name in workspace.datasets():
            raise BusyError(f"dataset '{name}' was made by another process just now; run the same command again")
        yield path


def _relabel(
    spec: IngestSpec, old: Labels, known: Labels | None, new: Labels | None, classes: tuple[str, ...] | list[str]
) -> _Relabeled:
    """The labels that a spec describes, of training samples whose labels were `old` and whose true ones are `known` or not.

    True labels that were known stay. Else they are the labels before noise: the old ones, or those of --labels
    when the old ones are dropped. Without noise and --labels nobody knows.
    """
    given = old if new is None else new
    steps = [] if new is None or spec.labels is None else [f"column:{split_labels(spec.labels)[1]}"]
    truth = known
    if new is not None and spec.true_labels == "drop":
        truth = None
    elif new is not None and truth is None:
        truth = old
    if spec.noise is not None:
        steps.append(spec.noise)
        truth = given if truth is None else truth
        given = apply_noise(spec.noise, given, len(classes), spec.seed, superclasses_of(classes, spec.superclasses))
    return _Relabeled(given, truth, "+".join(steps) or None)


def _wrong_rate(done: _Relabeled) -> float | None:
    return None if done.true_labels is None else float((done.labels != done.true_labels).mean())


def _finish(
    writer: DatasetWriter,
    record: Record,
    classes: tuple[str, ...] | list[str],
    train: _Relabeled,
    test_labels: Labels,
    places: list[str],
) -> None:
    labels = np.concatenate([train.labels, test_labels])
    truth = None if train.true_labels is None else np.concatenate([train.true_labels, test_labels])
    writer.finish(record, classes, labels, truth, len(train.labels), places)


def _throttled(report: Report | None) -> Report:
    """A report that calls on at most ten times a second, and always at the end of a stage."""
    last = [-1.0]

    def throttled(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if report is not None and (done >= total or now - last[0] >= 0.1):
            last[0] = now
            report(stage, done, total)

    return throttled
