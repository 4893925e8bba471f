"""What a person who decides about a sample looks at: the reasons for doubt, and what to compare it with."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd

from engine.queries.connection import SUGGESTED, fetch_sql, source_run

_BY = "2 * CAST(method = 'heldout_prediction' AS INTEGER) + confidence"


def fetch_doubts(
    connection: duckdb.DuckDBPyConnection, run_id: str, ids: Sequence[int], suggesting: str = ""
) -> pd.DataFrame:
    """What speaks for and against the labels of some samples, in the order of ids.

    sample_id, split, label, true_label, source, thumbnail; suggested_label, confidence and method of the suggestion to
    show; p_given: the probability that networks which did not see it give the label (NA where the run did not keep it);
    p_wrong (NA where the networks cannot tell), listed; rules: that vote on labels in this run, flagging: those of them
    that flag the sample. NA where unknown.

    suggesting: a relabeling, whose suggestions are shown in place of the run's own
    """
    return fetch_sql(
        connection,
        f"""WITH wanted AS (SELECT unnest($ids::INTEGER[]) AS sample_id, unnest(range(len($ids::INTEGER[]))) AS place),
        used AS (SELECT rule FROM rules WHERE run_id = $run AND coalesce(why_unused, '') = '')
        SELECT sample_id, split, label, true_label, source, thumbnail, suggested_label, confidence, method, p_given,
        if((SELECT any_value(noise) FROM verdict WHERE run_id = $run) IS NULL, NULL, p_wrong) AS p_wrong,
        coalesce(listed, false) AS listed, coalesce(rules, 0) AS rules, coalesce(flagging, 0) AS flagging
        FROM wanted JOIN samples USING (sample_id) LEFT JOIN images USING (sample_id)
        LEFT JOIN (SELECT sample_id, {SUGGESTED} AS suggested_label, arg_max(confidence, {_BY}) AS confidence,
            arg_max(method, {_BY}) AS method FROM suggestions
            WHERE run_id = $proposed AND sample_id IN (SELECT unnest($ids::INTEGER[])) GROUP BY sample_id) USING (sample_id)
        LEFT JOIN (SELECT sample_id, 1 - value AS p_given FROM scores WHERE run_id = $run AND score = 'confident_learning'
            AND sample_id IN (SELECT unnest($ids::INTEGER[]))) USING (sample_id)
        LEFT JOIN (SELECT sample_id, p_wrong, listed FROM shortlist WHERE run_id = $run) USING (sample_id)
        LEFT JOIN (SELECT sample_id, count(*) AS rules, count(*) FILTER (flagged) AS flagging FROM flags
            WHERE run_id = $run AND rule IN (FROM used) AND sample_id IN (SELECT unnest($ids::INTEGER[]))
            GROUP BY sample_id) USING (sample_id) ORDER BY place""",
        {
            "ids": [int(i) for i in ids],
            "run": run_id,
            "proposed": suggesting or source_run(connection, "suggestions", run_id),
        },
    )


def fetch_neighbor_labels(connection: duckdb.DuckDBPyConnection, run_id: str, ids: Sequence[int]) -> pd.DataFrame:
    """sample_id, rank, neighbor_id, label (given, of the neighbor) of the neighbors of some samples, the nearest first."""
    return fetch_sql(
        connection,
        """SELECT n.sample_id, rank, neighbor_id, label FROM neighbors AS n
        JOIN samples ON samples.sample_id = neighbor_id
        WHERE run_id = $run AND n.sample_id IN (SELECT unnest($ids::INTEGER[])) ORDER BY n.sample_id, rank""",
        {"ids": [int(i) for i in ids], "run": source_run(connection, "neighbors", run_id)},
    )


def fetch_typical(connection: duckdb.DuckDBPyConnection, run_id: str, most: int = 4) -> pd.DataFrame:
    """label, ids: of each class its training samples that are the least suspicious; empty for a run without a shortlist."""
    return fetch_sql(
        connection,
        f"""SELECT label, arg_max(sample_id, rank, {int(most)}) AS ids FROM shortlist JOIN samples USING (sample_id)
        WHERE run_id = ? AND split = 'train' GROUP BY label ORDER BY label""",
        [run_id],
    )


def fetch_thumbnails(connection: duckdb.DuckDBPyConnection, ids: Sequence[int]) -> pd.DataFrame:
    """sample_id, thumbnail (WebP bytes) of some samples."""
    return fetch_sql(
        connection,
        "SELECT sample_id, thumbnail FROM images WHERE sample_id IN (SELECT unnest($ids::INTEGER[]))",
        {"ids": [int(i) for i in ids]},
    )


def fetch_sources(connection: duckdb.DuckDBPyConnection, ids: Sequence[int]) -> pd.DataFrame:
    """sample_id, source of some samples."""
    return fetch_sql(
        connection,
        "SELECT sample_id, source FROM samples WHERE sample_id IN (SELECT unnest($ids::INTEGER[]))",
        {"ids": [int(i) for i in ids]},
    )
