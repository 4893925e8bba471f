"""The scores and flags of a run as people use them in pandas: a row per training sample, a column each. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd

from engine.queries.connection import MOST_FLAG, fetch_sql


def fetch_samples(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """sample_id, split, label, true_label (Int64, NA where unknown), class_name, source of every sample, by sample_id."""
    return fetch_sql(connection, "SELECT * FROM samples ORDER BY sample_id").astype({"true_label": "Int64"})


def fetch_scores(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """sample_id and one column per score (float32, NaN where a sample has none), by sample_id."""
    names = _names(connection, "score", "scores", run_id)
    columns = _columns(names, "any_value(value) FILTER (score = '{literal}')")
    return fetch_sql(
        connection,
        f"SELECT sample_id{columns} FROM scores WHERE run_id = ? GROUP BY sample_id ORDER BY sample_id",
        [run_id],
    )


def fetch_flags(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """sample_id, flagged (by at least half of the rules that judge it), then flagged_RULE (bool) of every rule, by sample_id.

    A rule that does not judge a sample does not flag it. A rule may have the name of a score, hence the prefix.
    """
    rules = _names(connection, "rule", "flags", run_id)
    columns = _columns(rules, "coalesce(bool_or(flagged) FILTER (rule = '{literal}'), false)", "flagged_")
    return fetch_sql(
        connection,
        f"SELECT sample_id, {MOST_FLAG} AS flagged{columns} FROM flags WHERE run_id = ? "
        "GROUP BY sample_id ORDER BY sample_id",
        [run_id],
    )


def _names(connection: duckdb.DuckDBPyConnection, column: str, view: str, run_id: str) -> list[str]:
    found = connection.execute(f"SELECT DISTINCT {column} FROM {view} WHERE run_id = ? ORDER BY 1", [run_id]).fetchall()
    return [str(name) for (name,) in found]


def _columns(names: Sequence[str], value: str, prefix: str = "") -> str:
    """One column for each name, called by it: `value` with the name as an SQL literal."""
    parts = []
    for name in names:
        literal, identifier = name.replace("'", "''"), f"{prefix}{name}".replace('"', '""')
        parts.append(f', {value.format(literal=literal)} AS "{identifier}"')
    return "".join(parts)
