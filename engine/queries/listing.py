"""Which samples are listed, and in what order: quick at a million, so that a page may cut its part out of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from engine.errors import WinnowError
from engine.queries.connection import SUGGESTED, fetch_sql, source_run
from engine.queries.samples import SUSPICION, Filter, Ids, condition, population, require_name
from engine.store.sql import one_line

Column = np.ndarray[Any, Any]


def fetch_columns(connection: duckdb.DuckDBPyConnection, sql: str, given: Sequence[Any] = ()) -> dict[str, Column]:
    """The columns of a query whose answer has a row per sample, none of them NULL, as arrays."""
    try:
        found = connection.execute(sql, list(given)).fetchnumpy()
    except duckdb.Error as error:
        raise WinnowError(one_line(error)) from error
    return {name: np.asarray(values) for name, values in found.items()}


def fetch_ids(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    wanted: Filter,
    score: str = "",
    hardest_first: bool = True,
) -> Ids:
    """The ids of the samples that pass, in the order of a score or of the shortlist (`fetch_order`): (n,) int32."""
    passing = fetch_passing(connection, run_id, wanted)
    return in_order(passing, fetch_order(connection, run_id, score, hardest_first)) if score else passing


def fetch_passing(connection: duckdb.DuckDBPyConnection, run_id: str, wanted: Filter) -> Ids:
    """The ids of the samples that pass a filter, ascending: (n,) int32.

    Raises: SpecError for a score or rule that the run does not have
    """
    # The shortlist holds judged samples alone, so that it need not be joined with them a second time.
    judged = "true" if wanted.split == "all" and wanted.flagged else population(run_id, wanted.split)
    where = f"{judged} AND {condition(connection, run_id, wanted) or 'true'}"
    found = fetch_columns(connection, f"SELECT sample_id FROM samples WHERE {where}")["sample_id"]
    return np.sort(found).astype(np.int32, copy=False)


def fetch_order(connection: duckdb.DuckDBPyConnection, run_id: str, score: str = "", hardest_first: bool = True) -> Ids:
    """The ids of all samples in an order: (N,) int32.

    score: its rank decides, samples that have none (the test part has none) come last by their place on the shortlist;
    SUSPICION: the place on the shortlist, what was not judged last; "": the id
    Raises: SpecError for a score that the run does not have
    """
    (count,) = fetch_columns(connection, "SELECT coalesce(max(sample_id) + 1, 0) AS n FROM samples")["n"].tolist()
    parts: list[Ids] = []
    if score and score != SUSPICION:
        require_name(connection, "score", "scores", run_id, score)
        ranked = _ranked(connection, "scores WHERE run_id = ? AND score = ?", [run_id, score])
        parts.append(ranked[::-1] if hardest_first else ranked)
    if score:
        suspects = _ranked(connection, "shortlist WHERE run_id = ?", [run_id])
        parts.append(suspects if hardest_first or score != SUSPICION else suspects[::-1])
    fresh = np.ones(count, bool)
    for i, part in enumerate(parts):
        kept = part[(part >= 0) & (part < count)]
        parts[i] = kept[fresh[kept]]
        fresh[parts[i]] = False
    return np.concatenate([*parts, np.flatnonzero(fresh)]).astype(np.int32)


def fetch_first(connection: duckdb.DuckDBPyConnection, run_id: str, score: str, most: int) -> Ids:
    """The first samples of the shortlist (SUSPICION), else the hardest by a score: (n,) int32, n at most `most`."""
    of_run, given = ("shortlist WHERE run_id = ? AND listed ORDER BY rank", [run_id])
    if score != SUSPICION:
        of_run, given = ("scores WHERE run_id = ? AND score = ? ORDER BY rank DESC", [run_id, score])
    found = fetch_columns(connection, f"SELECT sample_id FROM {of_run} LIMIT {int(most)}", given)
    return found["sample_id"].astype(np.int32, copy=False)


def _ranked(connection: duckdb.DuckDBPyConnection, source: str, given: Sequence[Any]) -> Ids:
    found = fetch_columns(connection, f"SELECT sample_id, rank FROM {source}", given)
    ids, ranks = found["sample_id"].astype(np.int32, copy=False), found["rank"]
    n = len(ids)
    if n and ranks.min() == 0 and ranks.max() == n - 1:
        placed = np.full(n, -1, np.int32)
        placed[ranks] = ids  # ranks that are 0 .. n-1, each once, as winnow writes them, are the places themselves
        if placed.min() >= 0 and ids.min() >= 0:
            return placed
    in_rank: Ids = ids[np.argsort(ranks, kind="stable")]
    return in_rank


def in_order(ids: Ids, order: Ids) -> Ids:
    """Those of an order that are among some ids."""
    among = np.zeros(max(int(order.max(initial=-1)), int(ids.max(initial=-1))) + 1, bool)
    among[ids] = True
    found: Ids = order[among[order]]
    return found


def fetch_given_labels(connection: duckdb.DuckDBPyConnection) -> Column:
    """The given label of every sample by id: (N,) int32."""
    found = fetch_columns(connection, "SELECT sample_id, label FROM samples")
    labels = np.zeros(int(found["sample_id"].max(initial=-1)) + 1, np.int32)
    labels[found["sample_id"]] = found["label"]
    return labels


def fetch_facets(connection: duckdb.DuckDBPyConnection, run_id: str, wanted: Filter) -> pd.DataFrame:
    """label, class_name, n (samples that pass), total (of the split), in label order."""
    passing, all_of_it = (fetch_passing(connection, run_id, given) for given in (wanted, Filter(split=wanted.split)))
    classes = fetch_sql(connection, "SELECT label, class_name FROM classes ORDER BY label")
    return count_classes(classes, fetch_given_labels(connection), passing, all_of_it)


def count_classes(classes: pd.DataFrame, labels: Column, passing: Ids, all_of_it: Ids) -> pd.DataFrame:
    """`fetch_facets` of ids that are known already.

    Args: classes: label and class_name; labels: of every sample by id
    """
    n, total = (np.bincount(labels[ids], minlength=len(classes))[classes["label"]] for ids in (passing, all_of_it))
    return classes.assign(n=n, total=total)


def fetch_proposals(connection: duckdb.DuckDBPyConnection, run_id: str) -> Column:
    """By sample id, the label that a thumbnail shows after the arrow: the true label where it is known, else the
    suggested one; -1 where there is none, or it is the given label: (N,) int32."""
    found = fetch_columns(
        connection,
        f"""SELECT sample_id, if(other IS NULL OR other = label, -1, other) AS other FROM (
            SELECT sample_id, label, coalesce(true_label, suggested_label) AS other FROM samples LEFT JOIN
            (SELECT sample_id, {SUGGESTED} AS suggested_label FROM suggestions WHERE run_id = ? GROUP BY sample_id)
            USING (sample_id))""",
        [source_run(connection, "suggestions", run_id)],
    )
    others = np.full(int(found["sample_id"].max(initial=-1)) + 1, -1, np.int32)
    others[found["sample_id"]] = found["other"]
    return others


def fetch_metadata_of(connection: duckdb.DuckDBPyConnection, name: str, ids: Sequence[int]) -> pd.DataFrame:
    """sample_id, value, number of those of some samples that have a name of the metadata."""
    sql = (
        "SELECT sample_id, value, number FROM metadata WHERE name = $name "
        "AND sample_id IN (SELECT unnest($ids::INTEGER[])) ORDER BY sample_id"
    )
    return fetch_sql(connection, sql, {"name": name, "ids": [int(i) for i in ids]})


def fetch_sample_metadata(connection: duckdb.DuckDBPyConnection, sample_id: int) -> pd.DataFrame:
    """name, value of all metadata of one sample, by name."""
    return fetch_sql(connection, "SELECT name, value FROM metadata WHERE sample_id = ? ORDER BY name", [sample_id])
