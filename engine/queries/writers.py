"""Export of training samples to a file: which, and in which format. A format is one function here.

The command line writes a file with `export` and `export_samples`; a page offers the same bytes by `export_bytes` of
the same `fetch_selected`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import duckdb
import numpy as np
import pandas as pd

from engine.errors import SpecError, unknown_name
from engine.fields import check_choice
from engine.queries.connection import MOST_FLAG, connected, fetch_sql, latest_run
from engine.store.atomic import write_export
from engine.store.sql import check_condition, fetch_answer, identifier, literal
from engine.store.workspace import Workspace

Write = Callable[[pd.DataFrame, BinaryIO], None]
Split = Literal["train", "test", "all"]

_COLUMNS = (
    "sample_id",
    "split",
    "label",
    "true_label",
    "class_name",
    "source",
    "flagged",
    "action",
    "new_label",
    "note",
)
"""What a condition names besides scores; metadata that are called so are found in the view `metadata`."""


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
    frame.to_csv(file, index=False, lineterminator="\n", encoding="utf-8")


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
    connection: duckdb.DuckDBPyConnection, where: str, run_id: str | None = None, split: Split = "train"
) -> pd.DataFrame:
    """The samples of a split that meet a condition, by id: what `winnow ingest` reads back.

    Columns: sample_id, split, label, true_label, class_name, true_class_name, source, and one per name of the metadata.

    Args:    where: one SQL expression over the columns of `samples`, one column per score of the run, `flagged`
             (by at least half of its rules), `action` (a person's decision) and the metadata by name, unless another
             column is called so, with sub-queries over every view; "" = all; run_id: whose scores; None = the latest
             run that has scores
    Returns: true_label is Int64, NA where it is unknown; metadata are numbers where all can be written back as they were
    Raises:  SpecError for anything but one expression; WinnowError for a mistake in it
    """
    condition = check_condition(where or "true")
    run = run_id or latest_run(connection, "scores")
    # Of what can be named only what is: all scores of a million samples side by side take seconds.
    named = [name for name in _scores(connection, run) if name in where or "COLUMNS" in where.upper()]
    metadata = _metadata_named(connection, where, [*_scores(connection, run), *_COLUMNS])
    scores = (
        f"SELECT sample_id{score_columns(named)} FROM scores WHERE run_id = $run AND score IN "
        "(SELECT unnest($named::VARCHAR[])) GROUP BY sample_id"
    )
    further = [sql for sql, wanted in ((scores, named), (metadata, metadata)) if wanted]
    columns = "".join(f", further_{i}.* EXCLUDE (sample_id)" for i in range(len(further)))
    joins = "".join(f"LEFT JOIN ({sql}) AS further_{i} USING (sample_id) " for i, sql in enumerate(further))
    everything = (
        f"SELECT samples.*{columns}, coalesce(f.flagged, false) AS flagged, action FROM samples {joins}"
        f"LEFT JOIN (SELECT sample_id, {MOST_FLAG} AS flagged FROM flags WHERE run_id = $run GROUP BY sample_id) AS f "
        "USING (sample_id) LEFT JOIN decisions USING (sample_id)"
        + ("" if split == "all" else f" WHERE split = {literal(split)}")
    )
    kept, _ = fetch_answer(
        connection,
        "SELECT sample_id, split, label, true_label, class_name, (SELECT class_name FROM classes WHERE classes.label = "
        "samples.true_label) AS true_class_name, source "
        f"FROM ({everything}) AS samples WHERE {condition} ORDER BY sample_id",
        {"run": run, **({"named": named} if named else {})},
    )
    return _with_metadata(connection, kept.astype({"true_label": "Int64"}))


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
    """Samples with one more column per name of their metadata, in alphabetical order."""
    rows = connection.execute(
        "SELECT name, list(sample_id) AS ids, list(value) AS texts FROM metadata WHERE sample_id IN "
        "(SELECT unnest($ids::INTEGER[])) GROUP BY name ORDER BY name",
        {"ids": kept["sample_id"].tolist()},
    ).fetchall()
    if not rows:
        return kept
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
    split: Split = "train",
) -> tuple[int, int]:
    """Write the samples of a split that meet a condition (see `fetch_selected`) to a file, whole or not at all.

    Args:    format: one of WRITERS; "" = by the file's ending; run: whose scores; None = the latest with scores
    Returns: (kept, all) numbers of samples of the split
    Raises:  SpecError for an unknown format or anything but one condition; WinnowError for a mistake in it
    """
    check_choice("split", split, Split)
    find_writer(format or to.suffix.lstrip(".").lower())
    with connected(workspace, dataset) as connection:
        kept = fetch_selected(connection, where, run, split)
        total = int(
            fetch_sql(connection, "SELECT count(*) AS n FROM samples WHERE ? IN (split, 'all')", [split])["n"][0]
        )
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
