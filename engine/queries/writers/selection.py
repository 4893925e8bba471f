"""Which samples an export holds, under which label, and what is written of each: read in blocks, never all at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd

from engine.fields import check_choice
from engine.queries.connection import fetch_sql
from engine.queries.samples import Ids
from engine.queries.verdicts import Verdict, fetch_verdict
from engine.queries.writers.conditions import (
    COLUMNS,
    SUSPICION_COLUMNS,
    among,
    fetch_passing,
    metadata_kinds,
    run_for,
    score_columns,
    wanted_scores,
)

Decisions = Literal["apply", "ignore"]

_DTYPES: dict[str, Any] = {"Int64": pd.Int64Dtype(), "float64": np.float64, "str": str}

BLOCK = 1 << 14
"""Samples that are read at once."""


@dataclass(frozen=True)
class Choice:
    """What an export is to hold.

    where: one SQL expression over the columns of `fetch_selected`, one per score of the run, and `action`; "" = all.
    split: train, test, or all that were judged (all, without a verdict). run: whose scores and shortlist; None = of the runs
    that have all scores that are named the one to trust most. decisions: apply = what a person dropped is left out, and what
    they relabeled has its new label; ignore = every sample as it was ingested. scores: those that are columns of their own,
    ("all",) = all. ids: no others than these, ascending; None = all. weights: one of each of the ids, as a column.
    labels: the label to train on of those ids, in place of the decisions'; set_name: the version that ids and labels are of,
    which says nothing of test samples: they are taken as they are.
    """

    where: str = ""
    split: str = "train"
    run: str | None = None
    decisions: Decisions = "ignore"
    scores: tuple[str, ...] = ()
    ids: Sequence[int] | Ids | None = None
    weights: Sequence[float] | None = None
    labels: Sequence[int] | Ids | None = None
    set_name: str = ""

    def __post_init__(self) -> None:
        check_choice("decisions", self.decisions, Decisions)


@dataclass
class Selection:
    """The samples that were chosen, on a cursor of its own that `selected` closes.

    ids: theirs, ascending; total: of the split; left_out: those that the choice leaves out because a person dropped them;
    relabeled: those with another label than the given one; columns: of every block; verdict: of the run, if it has one
    """

    cursor: duckdb.DuckDBPyConnection
    choice: Choice
    dataset: str
    fingerprint: str
    classes: tuple[str, ...]
    run: str | None
    verdict: Verdict | None
    ids: Ids
    total: int
    left_out: int
    listen: Callable[[float], None] = lambda share: None
    relabeled: int = 0
    scores: tuple[str, ...] = ()
    kinds: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def attrs(self) -> dict[str, Any]:
        """What a frame or a Parquet file of it says beside its rows."""
        return {"verdict": asdict(self.verdict) if self.verdict else None}

    def frame(self) -> pd.DataFrame:
        """All at once."""
        found = pd.concat(self.blocks(), ignore_index=True) if len(self) else next(self.blocks())
        found.attrs.update(self.attrs)
        return found

    def blocks(self, size: int = BLOCK) -> Iterator[pd.DataFrame]:
        """Every column of the samples, block by block in the order of their ids; one empty block where there is none.

        `listen` is called with the share that has been taken, and may raise to stop.
        """
        for start in range(0, max(1, len(self)), size):
            self.listen(start / max(1, len(self)))
            yield self._block(self.ids[start : start + size])
        self.listen(1.0)

    def values(self, sql: str, given: dict[str, Any] | None = None) -> pd.DataFrame:
        """The rows of a query of ours over the views and `chosen` (sample_id, new_label, weight, decision)."""
        return fetch_sql(self.cursor, sql, given or {})

    def _block(self, ids: Ids) -> pd.DataFrame:
        ends = {"first": int(ids[0]) if len(ids) else 0, "last": int(ids[-1]) if len(ids) else -1}
        block = self.values(
            """WITH s AS (FROM samples WHERE sample_id BETWEEN $first AND $last),
            x AS (SELECT sample_id, p_wrong, listed, rank FROM shortlist
                WHERE run_id = $run AND sample_id BETWEEN $first AND $last)
            SELECT sample_id, split, coalesce(chosen.new_label, s.label) AS label, s.true_label, c.class_name,
            t.class_name AS true_class_name, source, x.p_wrong, coalesce(x.listed, false) AS flagged,
            x.rank AS suspicion_rank, s.label AS given_label, s.class_name AS given_class, decision, weight
            FROM chosen JOIN s USING (sample_id) LEFT JOIN x USING (sample_id)
            LEFT JOIN classes AS c ON c.label = coalesce(chosen.new_label, s.label)
            LEFT JOIN classes AS t ON t.label = s.true_label
            WHERE sample_id BETWEEN $first AND $last ORDER BY sample_id""",
            {"run": self.run, **ends},
        )
        if self.verdict is None:
            for name in SUSPICION_COLUMNS:
                block[name] = None
        if self.choice.weights is None:
            block = block.drop(columns="weight")
        texts = dict.fromkeys(("split", "class_name", "true_class_name", "source", "given_class", "decision"), "str")
        types = {"label": "int32", "true_label": "Int64", "given_label": "int32", **texts}
        types |= {"p_wrong": "float32", "flagged": "boolean", "suspicion_rank": "Int64"}
        block = block.astype(types)
        return pd.concat([block, *self._scores(ids, ends), *self._metadata(ids, ends)], axis=1)

    def _scores(self, ids: Ids, ends: dict[str, int]) -> Iterator[pd.Series]:
        if not self.scores:
            return
        found = self.values(
            f"SELECT sample_id{score_columns(self.scores)} FROM scores WHERE run_id = $run AND sample_id BETWEEN $first AND "
            "$last AND score IN (SELECT unnest($named::VARCHAR[])) GROUP BY sample_id",
            {"run": self.run, "named": list(self.scores), **ends},
        ).set_index("sample_id")
        for name in self.scores:
            yield found[name].reindex(ids).reset_index(drop=True).astype("float32")

    def _metadata(self, ids: Ids, ends: dict[str, int]) -> Iterator[pd.Series]:
        if not self.kinds:
            return
        rows = self.values(
            "SELECT name, sample_id, value FROM metadata WHERE sample_id BETWEEN $first AND $last "
            "AND name IN (SELECT unnest($names::VARCHAR[]))",
            {"names": list(self.kinds), **ends},
        )
        by_name = {str(name): part.set_index("sample_id")["value"] for name, part in rows.groupby("name", sort=False)}
        used = {name.lower() for name in (*COLUMNS, *self.scores)}
        for name, kind in self.kinds.items():
            column = by_name.get(name, pd.Series(dtype=object)).reindex(ids).reset_index(drop=True)
            if kind == "Int64":
                column = pd.Series(pd.array([None if v != v or v is None else int(v) for v in column], "Int64"))
            while name.lower() in used:  # as ingest names a column that is called so
                name = f"column_{name}"
            used.add(name.lower())
            yield column.astype(_DTYPES[kind]).rename(name)


def records(block: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a block as plain values by column, None where there is none."""
    plain = block.astype(object).where(block.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]


@contextlib.contextmanager
def selected(
    connection: duckdb.DuckDBPyConnection, choice: Choice, listen: Callable[[float], None] = lambda share: None
) -> Iterator[Selection]:
    """Choose samples; they are read in the block.

    Raises:  SpecError for anything but one expression, and for an unknown split or score; WinnowError for a mistake in it;
             NotFoundError when it names what only a verdict gives, and the run has none
    """
    cursor = connection.cursor()
    try:
        yield _select(cursor, choice, listen)
    finally:
        cursor.close()


def fetch_selected(
    connection: duckdb.DuckDBPyConnection,
    where: str,
    run_id: str | None = None,
    split: str = "train",
    decisions: Decisions = "ignore",
) -> pd.DataFrame:
    """The samples that meet a condition, by id: what `winnow ingest` reads back, and what the run says of them.

    Columns: sample_id, split, label (to train on), true_label, class_name, true_class_name, source, p_wrong, flagged,
    suspicion_rank, given_label, given_class, decision, and one per name of the metadata.

    Args:    where, run_id, split, decisions: see `Choice`. What several things are called means a column, else a score, else
             metadata; `label` and `class_name` are the given ones in it
    Returns: true_label is Int64, NA where it is unknown; metadata are numbers where they can be written back as they
             were; p_wrong (0..1), flagged (on the shortlist) and suspicion_rank
             (0 = the most suspicious) are NA in a run without a verdict. frame.attrs["verdict"]: the verdict of the run
    Raises:  as `selected`
    """
    with selected(connection, Choice(where, split, run_id, decisions)) as found:
        return found.frame()


def fetch_matching(connection: duckdb.DuckDBPyConnection, where: str, run_id: str | None = None) -> Ids:
    """The ids of the training samples that `fetch_selected` would give, ascending: (n,) int32."""
    run = run_id or run_for(connection, where)
    verdict = fetch_verdict(connection, run) if run else None
    ids: Ids = fetch_passing(connection, where, run, verdict, among(verdict, run, "train"))["sample_id"].to_numpy(
        np.int32
    )
    return ids


def _select(cursor: duckdb.DuckDBPyConnection, choice: Choice, listen: Callable[[float], None]) -> Selection:
    run = choice.run or run_for(cursor, choice.where)
    verdict = fetch_verdict(cursor, run) if run else None
    samples = among(verdict, run, choice.split)
    passing = fetch_passing(cursor, choice.where, run, verdict, samples)
    ids: Ids = passing["sample_id"].to_numpy(np.int32)
    wanted: Ids = ids
    new: Ids = np.full(len(ids), -1, np.int32)
    weights = np.zeros(len(ids))
    if choice.ids is not None:
        given: Ids = np.asarray(choice.ids, np.int32)
        labels = np.full(len(given), -1, np.int32) if choice.labels is None else np.asarray(choice.labels, np.int32)
        if choice.set_name:
            ((first_test,),) = cursor.execute("SELECT count(*) FROM samples WHERE split = 'train'").fetchall()
            tests = ids.compress(ids >= first_test)
            given, labels = np.append(given, tests), np.append(labels, np.full(len(tests), -1, np.int32))
        here = np.isin(given, ids)
        wanted, new = given.compress(here), labels.compress(here)
        weights = np.zeros(len(wanted)) if choice.weights is None else np.asarray(choice.weights, float)[here]
    left_out = 0
    if choice.decisions == "apply" and choice.labels is None:
        decided = fetch_sql(cursor, "SELECT sample_id, action, new_label FROM decisions")
        dropped = np.isin(wanted, decided.loc[decided["action"] == "drop", "sample_id"].to_numpy(np.int32))
        left_out = int(dropped.sum())
        wanted, weights = wanted.compress(~dropped), weights[~dropped]
        relabeled = decided[decided["action"] == "relabel"].set_index("sample_id")["new_label"]
        new = np.asarray(relabeled.reindex(wanted).fillna(-1), np.int32)
    rows = pd.DataFrame({"sample_id": wanted, "new_label": new, "weight": weights})
    cursor.register("chosen_rows", rows)
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE chosen AS SELECT sample_id, nullif(new_label, -1) AS new_label, weight, "
        "action AS decision FROM chosen_rows LEFT JOIN (SELECT sample_id, action FROM decisions) USING (sample_id)"
    )
    cursor.unregister("chosen_rows")
    ((dataset, fingerprint),) = cursor.execute("SELECT name, fingerprint FROM dataset").fetchall()
    classes = tuple(str(name) for (name,) in cursor.execute("SELECT class_name FROM classes ORDER BY label").fetchall())
    total = int(fetch_sql(cursor, f"SELECT count(*) AS n FROM samples WHERE {samples}")["n"][0])
    found = Selection(
        cursor, choice, str(dataset), str(fingerprint), classes, run, verdict, wanted, total, left_out, listen
    )
    found.relabeled = int(
        found.values("SELECT count(*) AS n FROM chosen JOIN samples USING (sample_id) WHERE new_label <> label")["n"][0]
    )
    found.scores = wanted_scores(cursor, run, choice.scores)
    found.kinds = metadata_kinds(cursor)
    return found


def fetch_export(connection: duckdb.DuckDBPyConnection, choice: Choice) -> dict[str, Any]:
    """What an export would hold, without its rows.

    Returns: ids (n,) int32; total, of the split; left_out and relabeled by decisions; known: how many of the samples have a
             true label; wrong: how many of these another label than that one; counts: label, n of those that are kept
    """
    with selected(connection, choice) as found:
        counts = found.values(
            "SELECT coalesce(chosen.new_label, samples.label) AS label, count(*) AS n, count(true_label) AS known, "
            "count(*) FILTER (coalesce(chosen.new_label, samples.label) <> true_label) AS wrong "
            "FROM chosen JOIN samples USING (sample_id) GROUP BY 1 ORDER BY 1"
        )
        return {
            "ids": found.ids,
            "total": found.total,
            "left_out": found.left_out,
            "relabeled": found.relabeled,
            "known": int(counts["known"].sum()),
            "wrong": int(counts["wrong"].sum()),
            "counts": counts[["label", "n"]],
        }
