"""Export of samples to a file: which, and in which format. A format is one function here.

The command line writes a file with `export` and `export_samples`; a page offers the same bytes by `export_bytes` of
the same `fetch_selected`.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import duckdb
import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

from engine.errors import NotFoundError, SpecError, WinnowError, unknown_name
from engine.queries.connection import best_run, connected, fetch_sql
from engine.queries.samples import Ids, population
from engine.queries.verdicts import Verdict, fetch_verdict, no_verdict
from engine.store.atomic import write_export
from engine.store.sql import check_condition, fetch_answer, identifier, literal
from engine.store.tables import PROPERTIES
from engine.store.workspace import Workspace
from engine.text import csv_text

Write = Callable[[pd.DataFrame, BinaryIO], None]

SUSPICION_COLUMNS = ("p_wrong", "flagged", "suspicion_rank")
"""The columns of an export that come from the run's verdict."""

_NAMED = ("sample_id", "split", "label", "true_label", "class_name", "source", "action", "new_label", "note")
"""What a condition names besides scores and SUSPICION_COLUMNS; metadata that are called so are in the view `metadata`."""


@dataclass(frozen=True)
class Writer:
    """One format. name: also the file's ending; title: for a button; holds: what the file holds, a few words."""

    name: str
    title: str
    holds: str
    media_type: str
    write: Write


WRITERS: dict[str, Writer] = {}
"""Every format by name, in the order of the page's buttons."""


def writer(name: str, *, title: str, media_type: str = "application/octet-stream") -> Callable[[Write], Write]:
    """Declare a function (frame, file) as the writer of a format. The frame has at least the column sample_id.

    The first line of its docstring, what the file holds, is shown in the help of --format and on the page.
    """

    def declare(function: Write) -> Write:
        holds = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        if name in WRITERS or not holds:
            raise ValueError(f"format '{name}' is declared twice or has no docstring")
        WRITERS[name] = Writer(name, title, holds, media_type, function)
        return function

    return declare


@writer("csv", title="CSV", media_type="text/csv")
def _csv(frame: pd.DataFrame, file: BinaryIO) -> None:
    """Every column, as text."""
    file.write(csv_of(frame).encode())


@writer("parquet", title="Parquet")
def _parquet(frame: pd.DataFrame, file: BinaryIO) -> None:
    """Every column, typed and compressed."""
    frame.to_parquet(file, index=False)


@writer("npy", title="NumPy")
def _npy(frame: pd.DataFrame, file: BinaryIO) -> None:
    """The sample ids, int64."""
    np.save(file, frame["sample_id"].to_numpy(np.int64), allow_pickle=False)


@writer("txt", title="Ids", media_type="text/plain")
def _txt(frame: pd.DataFrame, file: BinaryIO) -> None:
    """The sample ids, one a line."""
    file.write("".join(f"{i}\n" for i in frame["sample_id"]).encode())


def csv_of(frame: pd.DataFrame) -> str:
    """A table as CSV in which a spreadsheet computes no text: see engine/text.py. Numbers are as they are."""
    written = frame.copy(deep=False)
    names = [csv_text(str(name)) for name in frame.columns]
    written.columns, returns = pd.Index(names), "\r" in "".join(names)
    for place in range(frame.shape[1]):
        column = frame.iloc[:, place]
        if not is_numeric_dtype(column) and not is_datetime64_any_dtype(column):
            safe = [csv_text(cell) if isinstance(cell, str) else cell for cell in column]
            written.isetitem(place, safe)
            returns = returns or any("\r" in cell for cell in safe if isinstance(cell, str))
    # The writer puts quotes around a carriage return only where lines end with one.
    return written.to_csv(index=False, lineterminator="\r\n" if returns else "\n")


def formats_help() -> str:
    """The help of an option --format."""
    listed = "; ".join(f"{w.name}: {w.holds[0].lower()}{w.holds[1:]}" for w in WRITERS.values())
    return f"{listed}. (default: by the file's ending)"


def find_writer(format: str) -> Writer:
    """The writer of a format; SpecError, with the nearest name, when there is none."""
    if format not in WRITERS:
        raise SpecError(unknown_name("format", format, WRITERS, "--format"))
    return WRITERS[format]


def export_bytes(frame: pd.DataFrame, format: str) -> bytes:
    """What `write_frame` writes to a file."""
    file = io.BytesIO()
    find_writer(format).write(frame, file)
    return file.getvalue()


def write_frame(frame: pd.DataFrame, to: Path, format: str = "") -> None:
    """Write samples to a file, whole or not at all. format: "" = by the file's ending."""
    chosen = find_writer(format or to.suffix.lstrip(".").lower())

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            chosen.write(frame, file)

    write_export(to, write)


def fetch_selected(
    connection: duckdb.DuckDBPyConnection, where: str, run_id: str | None = None, split: str = "train"
) -> pd.DataFrame:
    """The samples that meet a condition, by id: what `winnow ingest` reads back, and what the run says of them.

    Columns: sample_id, split, label, true_label, class_name, true_class_name, source, p_wrong, flagged, suspicion_rank,
    and one per name of the metadata.

    Args:    where: one SQL expression over those columns, one column per score of the run, and `action` (a person's
             decision), with sub-queries over every view; "" = all. What several things are called means a column, else
             a score, else metadata. run_id: whose scores and shortlist; None = of the runs that have all scores that
             are named the one to trust most; split: train, test, or all that were judged (all, without a verdict)
    Returns: true_label is Int64, NA where it is unknown; metadata are numbers where they can be written back as they
             were; p_wrong (0..1), flagged (on the shortlist) and suspicion_rank
             (0 = the most suspicious) are NA in a run without a verdict. frame.attrs["verdict"]: the verdict of the run
    Raises:  SpecError for anything but one expression; WinnowError for a mistake in it; NotFoundError when it names
             what only a verdict gives, and the run has none
    """
    run = run_id or run_for(connection, where)
    verdict = fetch_verdict(connection, run) if run else None
    written = [
        "sample_id, split, label, true_label, class_name, (SELECT class_name FROM classes WHERE classes.label = "
        "samples.true_label) AS true_class_name, source",
        *(SUSPICION_COLUMNS if verdict else ()),
    ]
    kept = _answer(connection, ", ".join(written), where, run, verdict, split)
    for name in SUSPICION_COLUMNS:
        kept[name] = kept[name] if verdict else None
    types = {"true_label": "Int64", "p_wrong": "float32", "flagged": "boolean", "suspicion_rank": "Int64"}
    kept = _with_metadata(connection, kept.astype(types))
    kept.attrs["verdict"] = asdict(verdict) if verdict else None
    return kept


def fetch_matching(connection: duckdb.DuckDBPyConnection, where: str, run_id: str | None = None) -> Ids:
    """The ids of the training samples that `fetch_selected` would give, ascending: (n,) int32."""
    run = run_id or run_for(connection, where)
    verdict = fetch_verdict(connection, run) if run else None
    ids: Ids = _answer(connection, "sample_id", where, run, verdict, "train")["sample_id"].to_numpy(np.int32)
    return ids


def _answer(
    connection: duckdb.DuckDBPyConnection,
    columns: str,
    where: str,
    run: str | None,
    verdict: Verdict | None,
    split: str,
) -> pd.DataFrame:
    """Columns of the samples of a split that meet a condition, by id (see `fetch_selected`)."""
    condition = check_condition(where or "true")
    # Of what can be named only what is: all scores of a million samples side by side take seconds.
    named = [name for name in _scores(connection, run) if name in where or "COLUMNS" in where.upper()]
    scores = (
        f"SELECT sample_id{score_columns(named)} FROM scores WHERE run_id = $run AND score IN "
        "(SELECT unnest($named::VARCHAR[])) GROUP BY sample_id"
    )
    metadata = _metadata_named(connection, where, [*_scores(connection, run), *_NAMED, *SUSPICION_COLUMNS])
    further = [sql for sql, wanted in ((scores, named), (metadata, metadata)) if wanted]
    more = "".join(f", further_{i}.* EXCLUDE (sample_id)" for i in range(len(further)))
    joins = "".join(f"LEFT JOIN ({sql}) AS further_{i} USING (sample_id) " for i, sql in enumerate(further))
    # Without a verdict a condition cannot name what only a verdict gives: NULL would silently drop every sample.
    suspicion = "p_wrong, coalesce(listed, false) AS flagged, rank AS suspicion_rank, " if verdict else ""
    everything = (
        f"SELECT samples.*{more}, {suspicion}action FROM samples {joins}"
        "LEFT JOIN (SELECT sample_id, p_wrong, listed, rank FROM shortlist WHERE run_id = $run) USING (sample_id) "
        f"LEFT JOIN decisions USING (sample_id) WHERE {_among(verdict, run, split)}"
    )
    try:
        kept, _ = fetch_answer(
            connection,
            f"SELECT {columns} FROM ({everything}) AS samples WHERE {condition} ORDER BY sample_id",
            {"run": run, **({"named": named} if named else {})},
        )
    except WinnowError as error:
        missing = re.search(r'column "?(\w+)"? not found', str(error))
        if verdict is None and run and missing and missing[1] in SUSPICION_COLUMNS:
            ((dataset,),) = connection.execute("SELECT name FROM dataset").fetchall()
            raise NotFoundError(f"'{missing[1]}': {no_verdict(dataset, run)}") from error
        raise
    return kept


def _among(verdict: Verdict | None, run: str | None, split: str) -> str:
    """The samples of a split as an SQL condition. Without a verdict nothing is judged, and all are all there are."""
    judged = population(run or "", split)
    return "true" if split == "all" and verdict is None else judged


def _metadata_named(connection: duckdb.DuckDBPyConnection, where: str, taken: Sequence[str]) -> str:
    """SQL that makes one column of each name of the metadata that a condition may mean; "" when it means none."""
    found = connection.execute(
        "SELECT name, bool_and(number IS NOT NULL) FROM metadata GROUP BY name ORDER BY 1"
    ).fetchall()
    lower, used = where.lower(), {name.lower() for name in taken}
    columns = []
    for name, is_number in sorted(found, key=lambda row: str(row[0]) not in where):  # the one that is written so
        written = name.lower().replace('"', '""')  # in quotes, in any case
        if written in lower and name.lower() not in used:
            used.add(name.lower())
            value = "number" if is_number else "value"
            columns.append(f", any_value({value}) FILTER (name = {literal(name)}) AS {identifier(name)}")
    return f"SELECT sample_id{''.join(columns)} FROM metadata GROUP BY sample_id" if columns else ""


def _with_metadata(connection: duckdb.DuckDBPyConnection, kept: pd.DataFrame) -> pd.DataFrame:
    """Samples with one more column per name of their metadata, in alphabetical order, but for what is measured anew."""
    rows = connection.execute(
        "SELECT name, list(sample_id) AS ids, list(value) AS texts FROM metadata WHERE sample_id IN "
        "(SELECT unnest($ids::INTEGER[])) GROUP BY name ORDER BY name",
        {"ids": kept["sample_id"].tolist()},
    ).fetchall()
    rows = [row for row in rows if row[0] not in PROPERTIES]
    columns = {name: _typed(pd.Series(texts, ids, dtype=object)) for name, ids, texts in rows}
    wide = [column.reindex(kept["sample_id"]).set_axis(kept.index) for column in columns.values()]
    return pd.concat([kept, *(column.rename(name) for name, column in zip(columns, wide, strict=True))], axis=1)


def _typed(texts: pd.Series) -> pd.Series:
    """Texts as whole numbers, or as numbers, if each is written just as that number would be."""
    values = texts.tolist()
    try:
        if all(len(text) < 19 and str(int(text)) == text for text in values):
            return texts.map(int).astype("Int64")
        if all(math.isfinite(float(text)) and repr(float(text)) == text for text in values):
            return texts.astype(float)
    except ValueError:
        pass
    return texts


def run_for(connection: duckdb.DuckDBPyConnection, where: str) -> str | None:
    """The run whose scores a condition names, else the one to trust most."""
    rows = connection.execute("SELECT DISTINCT score FROM score_costs").fetchall()
    named = [str(score) for (score,) in rows if _names(where, str(score))]
    return best_run(connection, scores=named) or best_run(connection)


def _names(where: str, column: str) -> bool:
    """Whether a condition has a column's name as a word of its own."""
    return re.search(rf"(?<![\w@.]){re.escape(column)}(?![\w@])", where) is not None


def score_columns(names: Sequence[str]) -> str:
    """SQL that makes one column of each score, called by its name, of the rows of `scores` grouped by sample."""
    return "".join(f", any_value(value) FILTER (score = {literal(name)}) AS {identifier(name)}" for name in names)


def export(
    workspace: Workspace,
    dataset: str,
    where: str,
    to: Path,
    format: str = "",
    run: str | None = None,
    split: str = "train",
) -> tuple[int, int]:
    """Write the samples of a split that meet a condition (see `fetch_selected`) to a file, whole or not at all.

    Args:    format: one of WRITERS; "" = by the file's ending; run: whose scores and shortlist; None = the one to trust
    Returns: (kept, all) numbers of samples of the split
    Raises:  SpecError for an unknown format or anything but one condition; WinnowError for a mistake in it
    """
    find_writer(format or to.suffix.lstrip(".").lower())
    with connected(workspace, dataset) as connection:
        kept = fetch_selected(connection, where, run, split)
        chosen = run or run_for(connection, where)
        among = _among(fetch_verdict(connection, chosen) if chosen else None, chosen, split)
        total = int(fetch_sql(connection, f"SELECT count(*) AS n FROM samples WHERE {among}")["n"][0])
    write_frame(kept, to, format)
    return len(kept), total


def export_samples(
    workspace: Workspace,
    dataset: str,
    sample_ids: Sequence[int],
    to: Path,
    format: str = "",
    weights: Sequence[float] | None = None,
) -> tuple[int, int]:
    """`export` of the training samples of those ids, with a column of weights where there are some.

    Args: sample_ids: ascending
    """
    find_writer(format or to.suffix.lstrip(".").lower())
    with connected(workspace, dataset) as connection:
        everything = fetch_selected(connection, "")
    kept = everything[everything["sample_id"].isin(sample_ids)]
    if weights is not None:
        kept = kept.assign(weight=weights)
    write_frame(kept, to, format)
    return len(kept), len(everything)


def _scores(connection: duckdb.DuckDBPyConnection, run: str | None) -> list[str]:
    rows = connection.execute("SELECT DISTINCT score FROM scores WHERE run_id = ? ORDER BY 1", [run]).fetchall()
    return [str(name) for (name,) in rows]
