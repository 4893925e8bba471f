"""What came of an ingest, as lines for a person."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data.dataset_file import fetch_one, has_table, reading
from engine.store.tables import PROPERTIES
from engine.store.workspace import Workspace
from engine.text import percent

_SHOWN = 5


@dataclass(frozen=True)
class IngestResult:
    """What came of it. train, test, skipped: samples; noise_rate: share of wrong training labels, None = unknown;
    existed: the dataset was there already and nothing was done; added: samples that were added to it; notes: what a
    person should know of how the source was read; ignored: (reason, files, the first of them); metadata: names;
    known, wrong: training samples with a true label, and those of them that are labeled otherwise."""

    name: str
    fingerprint: str
    train: int
    test: int
    classes: int
    noise_rate: float | None
    skipped: int
    seconds: float
    existed: bool
    added: int
    notes: tuple[str, ...]
    ignored: tuple[tuple[str, int, str], ...]
    metadata: tuple[str, ...]
    known: int
    wrong: int


def fetch_outcome(
    workspace: Workspace, name: str, seconds: float, added: int | None, notes: tuple[str, ...] = ()
) -> IngestResult:
    """The outcome as the dataset has it now. added: None = it is new; 0 = nothing was done."""
    with reading(workspace.dataset_path(name)) as connection:
        fingerprint, rate = fetch_one(connection, "SELECT fingerprint, noise_rate FROM dataset")
        train, test, classes, skipped, known, wrong = fetch_one(
            connection,
            "SELECT count(*) FILTER (split = 'train'), count(*) FILTER (split = 'test'), (SELECT count(*) FROM classes), "
            "(SELECT count(*) FROM skipped), count(true_label) FILTER (split = 'train'), "
            "count(*) FILTER (split = 'train' AND label <> true_label) FROM samples",
        )
        rows = connection.execute(
            "SELECT reason, count(*), arg_min(source, rowid) FROM skipped GROUP BY reason ORDER BY 2 DESC, 1"
        ).fetchall()
        names = []
        if has_table(connection, "metadata"):
            names = connection.execute("SELECT DISTINCT name FROM metadata ORDER BY 1").fetchall()
    return IngestResult(
        *(name, fingerprint, train, test, classes, rate, skipped, seconds),
        existed=added == 0,
        added=added or 0,
        notes=notes,
        ignored=tuple((str(reason), int(count), str(first)) for reason, count, first in rows),
        metadata=tuple(str(row[0]) for row in names if row[0] not in PROPERTIES),
        known=known,
        wrong=wrong,
    )


def describe(done: IngestResult, took: str) -> list[str]:
    """The lines that say what came of it: the samples and what was decided about them first. took: the time, as text."""
    counts = f"{done.train:,} training and {done.test:,} test samples of {done.classes:,} classes"
    notes = "".join(f"; {note}" for note in done.notes)
    wrong = "" if done.noise_rate is None else f", {percent(done.noise_rate, 1)} of the training labels wrong"
    if done.noise_rate is None and done.known:
        wrong = f", {done.wrong:,} of {done.known:,} with a known true label wrong"
    if done.existed:
        state = "is there already" + ("" if done.notes else " (--add reads what is new in its source)")
    elif done.added:
        state = f"{done.added:,} added in {took}"
    else:
        state = f"ingested in {took}"
    lines = [f"dataset {done.name}: {counts}{wrong}{notes}; {state}"]
    if done.metadata:
        lines.append(f"metadata: {_listed(list(done.metadata))}")
    if done.ignored and not done.existed:
        parts = [f"{count:,} x {reason} (first: {first})" for reason, count, first in done.ignored]
        lines.append(f"left out: {_listed(parts, '; ')}")
    return lines


def _listed(texts: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else ""
    return separator.join(texts[:_SHOWN]) + more
