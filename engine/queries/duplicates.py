"""Groups of duplicates, and which of them cross the splits. No torch."""

from __future__ import annotations

import duckdb
import pandas as pd

from engine.queries.connection import fetch_sql


def fetch_duplicates(connection: duckdb.DuckDBPyConnection, run_id: str, leaks_only: bool = False) -> pd.DataFrame:
    """A row for each group of duplicates of a run, leaks first, then by size.

    group_id; samples, train, test: counts; exact: whether all have a copy with the same pixels; similarity: the smallest of
    its samples to the nearest other of the group; labels: how many different given labels they have; leak: whether it
    has samples of both splits; sample_ids: ascending.

    Args: leaks_only: groups of both splits alone
    """
    return fetch_sql(
        connection,
        """SELECT group_id, CAST(count(*) AS INTEGER) AS samples, CAST(count(*) FILTER (d.split = 'train') AS INTEGER) AS train,
        CAST(count(*) FILTER (d.split = 'test') AS INTEGER) AS test, bool_and(exact) AS exact, min(similarity) AS similarity,
        CAST(count(DISTINCT label) AS INTEGER) AS labels, any_value(leak) AS leak, list(sample_id ORDER BY sample_id) AS sample_ids
        FROM duplicates AS d JOIN samples USING (sample_id) WHERE run_id = $run AND (leak OR NOT $leaks)
        GROUP BY group_id ORDER BY any_value(leak) DESC, count(*) DESC, group_id""",
        {"run": run_id, "leaks": leaks_only},
    )
