"""Export of training samples to a file: which, and in which format. A format is one function here.

The command line writes a file with `export` and `export_samples`; a page offers the same bytes by `export_bytes` of
the same `fetch_selected`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import duckdb
import numpy as np
import pandas as pd

from engine.errors import SpecError, unknown_name
from engine.queries.connection import MOST_FLAG, connected, fetch_sql, latest_run
from engine.store.atomic import write_export
from engine.store.sql import check_condition, fetch_answer, identifier, literal
from engine.store.workspace import Workspace

Write = Callable[[pd.DataFrame, BinaryIO], None]


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


def fetch_selected(connection: duckdb.DuckDBPyConnection, where: str, run_id: str | None = None) -> pd.DataFrame:
    """The training samples that meet a condition, by id: sample_id, split, label, true_label, class_name, source.

    Args:    where: one SQL expression over the columns of `samples`, one column per score of the run, `flagged`
             (by at least half of its rules) and `action` (a person's decision), with sub-queries over every view;
             "" = all; run_id: whose scores; None = the latest run that has scores
    Returns: true_label is Int64, NA where it is unknown
    Raises:  SpecError for anything but one expression; WinnowError for a mistake in it
    """
    condition = check_condition(where or "true")
    run = run_id or latest_run(connection, "scores")
    # Of what can be named only what is: all scores of a million samples side by side take seconds.
    named = [name for name in _scores(connection, run) if name in where or "COLUMNS" in where.upper()]
    columns = score_columns(named)
    scores = (
        f"SELECT sample_id{columns} FROM scores WHERE run_id = $run AND score IN (SELECT unnest($named::VARCHAR[]))"
    )
    everything = (
        "SELECT samples.*, s.* EXCLUDE (sample_id), coalesce(f.flagged, false) AS flagged, action FROM samples "
        f"LEFT JOIN ({scores} GROUP BY sample_id) AS s USING (sample_id) "
        f"LEFT JOIN (SELECT sample_id, {MOST_FLAG} AS flagged FROM flags WHERE run_id = $run GROUP BY sample_id) AS f "
        "USING (sample_id) LEFT JOIN decisions USING (sample_id) WHERE split = 'train'"
    )
    if not named:
        everything = everything.replace("s.* EXCLUDE (sample_id), ", "")
    kept, _ = fetch_answer(
        connection,
        "SELECT sample_id, split, label, true_label, class_name, source "
        f"FROM ({everything}) AS samples WHERE {condition} ORDER BY sample_id",
        {"run": run, "named": named},
    )
    return kept.astype({"true_label": "Int64"})


def score_columns(names: Sequence[str]) -> str:
    """SQL that makes one column of each score, called by its name, of the rows of `scores` grouped by sample."""
    return "".join(f", any_value(value) FILTER (score = {literal(name)}) AS {identifier(name)}" for name in names)


def export(
    workspace: Workspace, dataset: str, where: str, to: Path, format: str = "", run: str | None = None
) -> tuple[int, int]:
    """Write the training samples that meet a condition (see `fetch_selected`) to a file, whole or not at all.

    Args:    format: one of WRITERS; "" = by the file's ending; run: whose scores; None = the latest with scores
    Returns: (kept, all) numbers of training samples
    Raises:  SpecError for an unknown format or anything but one condition; WinnowError for a mistake in it
    """
    find_writer(format or to.suffix.lstrip(".").lower())
    with connected(workspace, dataset) as connection:
        kept = fetch_selected(connection, where, run)
        total = int(fetch_sql(connection, "SELECT count(*) AS n FROM samples WHERE split = 'train'")["n"][0])
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
