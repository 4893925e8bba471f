"""`winnow ingest`: a source, or another dataset, made into a dataset file of the workspace."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.data.adding import HELD_OUT, add_samples
from engine.data.columns import parse_wanted
from engine.data.dataset_file import DatasetWriter, Record, fetch_one, reading
from engine.data.decoding import choose_form
from engine.data.label_column import read_labels, split_labels
from engine.data.noise import Matrix, apply_noise, reads, superclasses_of
from engine.data.noise_matrix import read_matrices
from engine.data.outcome import IngestResult, fetch_outcome
from engine.data.parts import Labels, Part, truth_of
from engine.data.request import IngestSpec
from engine.data.sources import open_source, roots_of
from engine.data.splits import stratified
from engine.data.writing import Report, throttled, together, write_part, wrong_rate
from engine.errors import BusyError, SourceError, SpecError
from engine.fields import options_of
from engine.store.trust import Roots, fetch_trust, named_folders, trust_roots
from engine.store.workspace import Workspace
from engine.text import percent


@dataclass(frozen=True)
class _Relabeled:
    """Given and true labels (N,) of samples, -1 where the truth is unknown, and what was done to the given ones."""

    labels: Labels
    true_labels: Labels
    noise: str | None


Confuse = Callable[[Workspace, str, Labels, int, Report], Matrix]
"""What networks confuse the training samples with: `engine.training.confusions.compute_confusions`."""


def ingest(
    workspace: Workspace, spec: IngestSpec, report: Report | None = None, confuse: Confuse | None = None
) -> IngestResult:
    """Make the dataset, or find it: the same spec given twice is done once.

    What the spec names, its --originals included, is trusted in this workspace from then on (engine.store.trust).

    Args:    report: called with (stage, done, total), at most ten times a second; confuse: for noise that reads it, which
             trains networks: this package does not
    Raises:  SpecError when the name is taken by something else; SourceError when the source is missing or
             malformed; BadSampleError, a SourceError, at a sample that cannot be read; StorageError when the
             disk refuses. Nothing is left behind by any of them.
    """
    started = time.monotonic()
    added: int | None = None
    notes: tuple[str, ...] = ()
    named = (*roots_of(spec.source), *roots_of(spec.test), *named_folders(spec.originals))
    within = fetch_trust(workspace).roots + named
    if spec.add and spec.name in workspace.datasets():
        added, notes = add_samples(workspace, spec, throttled(report), within)
    elif is_made(workspace, spec):
        added = 0
    elif spec.parent is None:
        notes = _read(workspace, spec, throttled(report), within)
    else:
        notes = _derive(workspace, spec, throttled(report), confuse)
    if problem := trust_roots(workspace, named):
        notes = (*notes, problem)
    return fetch_outcome(workspace, spec.name, time.monotonic() - started, added, notes)


def is_made(workspace: Workspace, spec: IngestSpec) -> bool:
    """Whether the dataset was made by the same spec; SpecError if another one has its name."""
    if spec.name not in workspace.datasets():
        return False
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
    return True


def _read(workspace: Workspace, spec: IngestSpec, report: Report, within: Roots) -> tuple[str, ...]:
    """Read a source of images or vectors. Returns: what a person should know of how it was read."""
    report("reading", 0, 1)
    source = open_source(spec.source, spec.seed, spec.test, parse_wanted(spec.columns, spec.metadata), within)
    notes = source.notes
    replaced = None if spec.labels is None else read_labels(spec.labels, source.classes, len(source.train))
    if source.test is not None and spec.test_fraction:
        raise SpecError(
            f"{spec.source} has a test split of its own ({len(source.test)} samples); leave out --test-fraction"
        )
    train, test = np.arange(len(source.train)), np.empty(0, np.int64)
    test_part, fraction = source.test, 0.0
    if test_part is None:
        fraction = source.test_fraction if spec.test_fraction is None else spec.test_fraction
        test = stratified(source.train.labels, round(fraction * len(train)), spec.seed, keep_one=True)
        train = np.setdiff1d(train, test)
        if spec.test_fraction is None and len(test):
            notes = (
                f"the test samples are {percent(fraction)} of each class, held out because the source has no test part "
                "(--test-fraction 0 keeps all for training)",
                *notes,
            )
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
            kept = write_part(writer, part, form, spec.skip_bad, skipped, lambda n: report("images", before + n, total))
            writer.end_split()
            return kept

        kept_train = write(train_part, 0)
        kept_test = write(test_part, len(train_part))
        if not len(kept_train):
            raise SourceError(f"{spec.source}: none of the {len(train_part)} training samples can be read")
        parts = (train_part.subset(kept_train), test_part.subset(kept_test))
        new = None if replaced is None else replaced[train][kept_train]
        done = _relabel(spec, parts[0].labels, truth_of(parts[0]), new, source.classes)
        writer.add_skipped(skipped)
        writer.add_metadata(together([part.metadata for part in parts], [len(part) for part in parts]))
        report("writing", 0, 1)
        _finish(
            writer,
            Record(
                *(spec.name, {**spec.to_json(), HELD_OUT: fraction}, spec.source, done.noise),
                wrong_rate(done.labels, done.true_labels),
            ),
            source.classes,
            done,
            parts[1].labels,
            _true_of_test(spec, parts[1].labels, truth_of(parts[1])),
            [place for part in parts for place in part.places],
        )
    return notes


def _derive(workspace: Workspace, spec: IngestSpec, report: Report, confuse: Confuse | None) -> tuple[str, ...]:
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
    new = None if spec.labels is None else read_labels(spec.labels, classes, train)

    def confusions(learned: Labels) -> Matrix | None:
        return confuse and confuse(workspace, name, learned, spec.seed, report)

    done = _relabel(spec, labels[:train], truth[:train], new, classes, confusions)
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
            *(spec.name, spec.to_json(), spec.source, done.noise, wrong_rate(done.labels, done.true_labels)),
            parent=name,
            parent_fingerprint=fingerprint,
        )
        test_truth = _true_of_test(spec, labels[train:], truth[train:])
        _finish(writer, record, classes, done, labels[train:], test_truth, places)
    return ()


@contextlib.contextmanager
def _building(workspace: Workspace, name: str) -> Iterator[Path]:
    """A path to write the dataset to, unless another process made one of that name since we looked."""
    with workspace.building_dataset(name) as path:
        if name in workspace.datasets():
            raise BusyError(f"dataset '{name}' was made by another process just now; run the same command again")
        yield path


def _relabel(
    spec: IngestSpec,
    old: Labels,
    known: Labels,
    new: Labels | None,
    classes: tuple[str, ...] | list[str],
    confusions: Callable[[Labels], Matrix | None] = lambda learned: None,
) -> _Relabeled:
    """The labels that a spec describes, of training samples whose labels were `old` and whose true ones `known`, or -1.

    True labels that were known stay. Else they are the labels before noise: the old ones, or those of --labels
    when the old ones are dropped. Without noise and --labels nobody knows.

    confusions: of the samples, by networks that learn their true labels
    """
    given = old if new is None else new
    steps = [] if new is None or spec.labels is None else [f"column:{split_labels(spec.labels)[1]}"]
    truth = known
    if new is not None:
        truth = np.full_like(known, -1) if spec.true_labels == "drop" else np.where(known < 0, old, known)
    if spec.noise is not None:
        steps.append(spec.noise)
        truth = np.where(truth < 0, given, truth)
        groups, matrices = superclasses_of(classes, spec.superclasses), read_matrices(spec.noise, classes)
        seen = confusions(truth) if reads(spec.noise, "confusions") else None
        given = apply_noise(spec.noise, given, len(classes), spec.seed, groups, confusions=seen, matrices=matrices)
    return _Relabeled(given, truth, "+".join(steps) or None)


def _true_of_test(spec: IngestSpec, labels: Labels, known: Labels) -> Labels:
    """The true labels of the test samples: their labels, too, where those of the training samples are taken as true."""
    taken = spec.noise is not None or (spec.labels is not None and spec.true_labels == "keep")
    return np.where(known < 0, labels, known) if taken else known


def _finish(
    writer: DatasetWriter,
    record: Record,
    classes: tuple[str, ...] | list[str],
    train: _Relabeled,
    test_labels: Labels,
    test_truth: Labels,
    places: list[str],
) -> None:
    labels = np.concatenate([train.labels, test_labels])
    truth = np.concatenate([train.true_labels, test_truth])
    writer.finish(record, classes, labels, truth, len(train.labels), places)
