"""Samples in groups, so that a gallery shows a class, a confusion or a set of duplicates together. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd

from engine.queries.connection import fetch_sql
from engine.queries.listing import Column, fetch_columns
from engine.queries.samples import Ids

Arrange = Callable[[Column, Column], Column]
"""(keys, sizes) of groups -> their sequence."""


@dataclass(frozen=True)
class Grouped:
    """Samples by groups. ids: of all groups, one after the other; starts: where each begins in ids, and the end, (G + 1,);
    keys: of each, (G,): a label, label * classes + other label (-1: no other label), or the id of a group of duplicates."""

    ids: Ids
    starts: Column
    keys: Column


def group_by_class(ids: Ids, labels: Column) -> Grouped:
    """In label order. labels: of every sample by id"""
    return _grouped(ids, labels[ids], lambda keys, sizes: np.argsort(keys))


def group_by_pair(ids: Ids, labels: Column, others: Column, classes: int) -> Grouped:
    """By given label and the label proposed instead, the largest group first; those without a proposal are last.

    Args: labels, others: of every sample by id, others as `fetch_proposals` gives them
    """
    pairs = np.where(others[ids] < 0, -1, labels[ids].astype(np.int64) * classes + others[ids])
    return _grouped(ids, pairs, lambda keys, sizes: np.lexsort((keys, -sizes, keys < 0)))


def group_by_duplicate(ids: Ids, order: Ids, groups: Column, facts: pd.DataFrame) -> Grouped:
    """The groups of duplicates that have one of some samples, each with all its samples: leaks first, then those with
    different labels, then by size.

    Args: ids: which are meant; order: of all samples; groups: of every sample by id, -1 = none; facts: as
          `fetch_duplicate_facts` gives them
    """
    meant = np.zeros(len(facts) + 1, bool)
    meant[groups[ids]] = True
    meant[-1] = False
    members = order[meant[groups[order]]]
    leak, labels = facts["leak"].to_numpy(bool), facts["labels"].to_numpy()
    return _grouped(
        members, groups[members], lambda keys, sizes: np.lexsort((keys, -sizes, labels[keys] < 2, ~leak[keys]))
    )


def _grouped(ids: Ids, keys: Column, arrange: Arrange) -> Grouped:
    unique, own, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    sequence = arrange(unique, sizes)
    place = np.empty(len(unique), np.int64)
    place[sequence] = np.arange(len(unique))
    starts = np.concatenate([[0], np.cumsum(sizes[sequence])])
    return Grouped(ids[np.argsort(place[own], kind="stable")], starts, unique[sequence])


def fetch_duplicate_groups(connection: duckdb.DuckDBPyConnection, run_id: str) -> Column:
    """The group of duplicates of every sample by id, -1 = none: (N,) int32; numbered as `fetch_duplicate_facts`."""
    (count,) = fetch_columns(connection, "SELECT coalesce(max(sample_id) + 1, 0) AS n FROM samples")["n"].tolist()
    sql = "SELECT sample_id, dense_rank() OVER (ORDER BY group_id) - 1 AS own FROM duplicates WHERE run_id = ?"
    found = fetch_columns(connection, sql, [run_id])
    groups = np.full(count, -1, np.int32)
    known = (found["sample_id"] >= 0) & (found["sample_id"] < count)
    groups[found["sample_id"][known]] = found["own"][known]
    return groups


def fetch_duplicate_facts(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """A row for each group of duplicates of a run, by its id: n, train, test, exact, similarity (the smallest), labels
    (how many different given ones), leak."""
    return fetch_sql(
        connection,
        """SELECT count(*) AS n, count(*) FILTER (d.split = 'train') AS train, count(*) FILTER (d.split = 'test') AS test,
        bool_and(exact) AS exact, min(similarity) AS similarity, count(DISTINCT label) AS labels, bool_or(leak) AS leak
        FROM duplicates AS d JOIN samples USING (sample_id) WHERE run_id = ? GROUP BY group_id ORDER BY group_id""",
        [run_id],
    )


def fetch_spare_copies(connection: duckdb.DuckDBPyConnection, run_id: str) -> Ids:
    """The training samples that a set without duplicates does not need, by id: of each group all but one.

    The one that stays is the least likely to be labeled wrongly, of those that are alike the one with the lowest id. None
    stays where the group has test samples: trained on a copy of what it is tested on, a network looks better than it is.
    Test samples are never spare.
    """
    sql = """WITH copies AS (
        SELECT d.sample_id, d.split, bool_or(d.split = 'test') OVER (PARTITION BY group_id) AS leak, row_number() OVER (
            PARTITION BY group_id, d.split ORDER BY p_wrong NULLS LAST, d.sample_id
        ) AS place
        FROM duplicates AS d LEFT JOIN shortlist AS s ON s.run_id = d.run_id AND s.sample_id = d.sample_id
        WHERE d.run_id = ?
    ) SELECT sample_id FROM copies WHERE split = 'train' AND (leak OR place > 1) ORDER BY sample_id"""
    return fetch_columns(connection, sql, [run_id])["sample_id"].astype(np.int32)
