"""Export of a curated subset: which training samples, to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from engine.errors import SpecError, unknown_name
from engine.queries.connection import MOST_FLAG, connected, fetch_sql, latest_run
from engine.store.atomic import write_export
from engine.store.sql import identifier, literal
from engine.store.workspace import Workspace

Format = Literal["csv", "parquet", "npy"]


def export(
    workspace: Workspace, dataset: str, where: str, to: Path, format: str = "", run: str | None = None
) -> tuple[int, int]:
    """Write the training samples that meet a condition to a file, whole or not at all.

    csv and parquet hold sample_id, split, label, true_label, class_name and source; npy the sample ids (int64).

    Args:    where: an SQL condition over the columns of `samples`, one column per score of the run, `flagged`
             (by at least half of its rules) and `action` (a person's decision), with sub-queries over every view;
             format: "" = by the file's ending; run: whose scores; None = the latest run that has scores
    Returns: (kept, all) numbers of training samples
    Raises:  SpecError for an unknown format; WinnowError for a mistake in the SQL
    """
    chosen = _format(to, format)
    with connected(workspace, dataset) as connection:
        run = run or latest_run(connection, "scores")
        names = fetch_sql(connection, "SELECT DISTINCT score FROM scores WHERE run_id = ? ORDER BY 1", [run])["score"]
        columns = "".join(
            f", any_value(value) FILTER (score = {literal(name)}) AS {identifier(name)}" for name in names
        )
        everything = (
            "SELECT samples.*, s.* EXCLUDE (sample_id), coalesce(f.flagged, false) AS flagged, action FROM samples "
            f"LEFT JOIN (SELECT sample_id{columns} FROM scores WHERE run_id = $run GROUP BY sample_id) AS s "
            f"USING (sample_id) LEFT JOIN (SELECT sample_id, {MOST_FLAG} AS flagged FROM flags "
            "WHERE run_id = $run GROUP BY sample_id) AS f USING (sample_id) "
            "LEFT JOIN decisions USING (sample_id) WHERE split = 'train'"
        )
        if not len(names):
            everything = everything.replace("s.* EXCLUDE (sample_id), ", "")
        kept = fetch_sql(
            connection,
            "SELECT sample_id, split, label, true_label, class_name, source "
            f"FROM ({everything}) AS samples WHERE ({where or 'true'}\n) ORDER BY sample_id",
            {"run": run},
        )
        total = int(fetch_sql(connection, "SELECT count(*) AS n FROM samples WHERE split = 'train'")["n"][0])
    write_export(to, lambda path: _write(kept, path, chosen))
    return len(kept), total


def export_samples(
    workspace: Workspace,
    dataset: str,
    sample_ids: Sequence[int],
    to: Path,
    format: str = "",
    weights: Sequence[float] | None = None,
) -> tuple[int, int]:
    """`export` of the training samples of those ids, in csv and parquet with a column of weights where there are some.

    Args: sample_ids: ascending
    """
    chosen = _format(to, format)
    with connected(workspace, dataset) as connection:
        everything = fetch_sql(
            connection,
            "SELECT sample_id, split, label, true_label, class_name, source FROM samples WHERE split = 'train' "
            "ORDER BY sample_id",
        )
    kept = everything[everything["sample_id"].isin(sample_ids)]
    if weights is not None:
        kept = kept.assign(weight=weights)
    write_export(to, lambda path: _write(kept, path, chosen))
    return len(kept), len(everything)


def _format(to: Path, asked: str) -> str:
    chosen = asked or to.suffix.lstrip(".").lower()
    if chosen not in get_args(Format):
        raise SpecError(unknown_name("format", chosen, get_args(Format), "--format"))
    return chosen


def _write(frame: pd.DataFrame, path: Path, format: str) -> None:
    if format == "csv":
        frame.astype({"true_label": "Int64"}).to_csv(path, index=False)
    elif format == "parquet":
        frame.astype({"true_label": "Int64"}).to_parquet(path, index=False)
    else:
        with open(path, "wb") as file:
            np.save(file, frame["sample_id"].to_numpy(np.int64), allow_pickle=False)
