"""Which training samples are meant, and what is known about each: filters as SQL, cards, one sample's history.

A filter becomes one SQL condition over the view `samples`. Pages, exports and the command line shown to a person
use the same text, so that what is seen is what is exported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import duckdb
import numpy as np
import pandas as pd

from engine.errors import SpecError, unknown_name
from engine.fields import check_choice, check_range
from engine.queries.connection import SUGGESTED, fetch_sql, source_run
from engine.store.decisions import Action
from engine.store.sql import literal

Truth = Literal["", "wrong", "right"]
Agreement = Literal["", "agrees", "disagrees"]
Split = Literal["train", "test", "all"]
Decision = Literal["", "undecided", "decided", "keep", "drop", "relabel", "unsure", "disputed"]

SUSPICION = "p_wrong"
"""Stands for a score where samples are sorted: by their place on the shortlist, the most suspicious first."""

Ids = np.ndarray[tuple[int], np.dtype[np.int32]]

Outline = tuple[tuple[float, float], ...]
"""The corners of a closed outline, x and y of each."""


@dataclass(frozen=True)
class Filter:
    """Conditions that a sample must all meet; what is empty does not restrict.

    split: train, test, or all that were judged: the training samples, and those of the test part that have a p_wrong.
    flagged: on the shortlist of the run. least, most: of its p_wrong, 0..1, both inclusive; 0 and 1 restrict nothing.
    labels, others: the given label; the true label or, where it is unknown, a suggested one. suggested: the label that
    the run suggests, which is the given one where it suggests no other. rule: a rule that flags it. truth: known to be
    mislabeled or known to be right. agreement: whether the networks agreed with the given label after the last epoch
    (margin_last > 0). score, low, high: percentiles of the rank by that score, 0 = easiest, low inclusive, high exclusive
    unless 100. region: a closed outline on the map, x and y. plane, outline: two scores of the run, and a closed outline
    over their values. measure: a score whose value is from above to below, both inclusive. about: a name of the metadata
    that a sample has; value: what it is, as text; at_least, at_most: what it is as a number, both inclusive. decision:
    whether or what people decided about it last, disputed: the latest decisions of its authors differ; author: the
    latest decision is of this person. named: a part of where it comes from, such as its file's name, in any case.
    """

    labels: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    suggested: tuple[int, ...] = ()
    rule: str = ""
    truth: Truth = ""
    agreement: Agreement = ""
    score: str = ""
    low: float = 0
    high: float = 100
    region: Outline = ()
    plane: tuple[str, str] = ("", "")
    outline: Outline = ()
    measure: str = ""
    above: float = -math.inf
    below: float = math.inf
    split: Split = "train"
    flagged: bool = False
    least: float = 0
    most: float = 1
    about: str = ""
    value: str = ""
    at_least: float = -math.inf
    at_most: float = math.inf
    decision: Decision = ""
    author: str = ""
    named: str = ""

    def __post_init__(self) -> None:
        check_choice("split", self.split, Split)
        check_choice("decision", self.decision, Decision)
        check_range("least", self.least, 0, 1)
        check_range("most", self.most, self.least, 1)
        check_choice("truth", self.truth, Truth)
        check_choice("agreement", self.agreement, Agreement)
        check_range("low", self.low, 0, 100)
        check_range("high", self.high, self.low, 100)
        check_range("at_most", self.at_most, self.at_least, math.inf)
        check_range("below", self.below, self.above, math.inf)
        for corners in (self.region, self.outline):
            if 0 < len(corners) < 3:
                raise SpecError(f"a region of {len(corners)} points; allowed: 3 or more")
            if not all(math.isfinite(value) for point in corners for value in point):
                raise SpecError("a region with a coordinate that is not a finite number; allowed: x,y of each corner")


def condition(connection: duckdb.DuckDBPyConnection, run_id: str, wanted: Filter) -> str:
    """The filter as an SQL condition over the view `samples` (as `winnow export --where` takes it); '' if empty.

    The split is not in it: that is an option of its own, `winnow export --split`.

    Raises: SpecError for a score or rule that the run does not have
    """
    run = literal(run_id)
    parts = []
    suspicion = ["listed"] if wanted.flagged else []
    suspicion += [f"p_wrong >= {wanted.least:g}"] if wanted.least > 0 else []
    suspicion += [f"p_wrong <= {wanted.most:g}"] if wanted.most < 1 else []
    if suspicion:
        of_run = " AND ".join([f"run_id = {run}", *suspicion])
        parts.append(f"sample_id IN (SELECT sample_id FROM shortlist WHERE {of_run})")
    if wanted.named:
        parts.append(f"contains(lower(source), lower({literal(wanted.named)}))")
    if wanted.labels:
        parts.append(f"label IN {_tuple(wanted.labels)}")
    if wanted.others:
        proposed = literal(source_run(connection, "suggestions", run_id))
        parts.append(
            f"(true_label IN {_tuple(wanted.others)} OR true_label IS NULL AND sample_id IN (SELECT sample_id "
            f"FROM suggestions WHERE run_id = {proposed} GROUP BY sample_id HAVING {SUGGESTED} IN {_tuple(wanted.others)}))"
        )
    if wanted.suggested:
        of_run = f"FROM suggestions WHERE run_id = {literal(source_run(connection, 'suggestions', run_id))}"
        parts.append(
            f"(sample_id IN (SELECT sample_id {of_run} GROUP BY sample_id HAVING {SUGGESTED} IN {_tuple(wanted.suggested)}) "
            f"OR label IN {_tuple(wanted.suggested)} AND sample_id NOT IN (SELECT sample_id {of_run}))"
        )
    if wanted.truth:
        parts.append("label <> true_label" if wanted.truth == "wrong" else "label = true_label")
    if wanted.rule:
        require_name(connection, "rule", "flags", run_id, wanted.rule)
        parts.append(
            f"sample_id IN (SELECT sample_id FROM flags WHERE run_id = {run} AND rule = {literal(wanted.rule)} AND flagged)"
        )
    if wanted.agreement:
        require_name(connection, "score", "scores", run_id, "margin_last")
        sign = ">" if wanted.agreement == "agrees" else "<="
        parts.append(
            f"sample_id IN (SELECT sample_id FROM scores WHERE run_id = {run} AND score = 'margin_last' AND value {sign} 0)"
        )
    if wanted.score and (wanted.low > 0 or wanted.high < 100):
        n = require_name(connection, "score", "scores", run_id, wanted.score)
        first, last = round(n * wanted.low / 100), round(n * wanted.high / 100) - 1
        parts.append(
            f"sample_id IN (SELECT sample_id FROM scores WHERE run_id = {run} AND score = {literal(wanted.score)} "
            f"AND rank BETWEEN {first} AND {last})"
        )
    if wanted.measure and (wanted.above > -math.inf or wanted.below < math.inf):
        require_name(connection, "score", "scores", run_id, wanted.measure)
        meant = [f"value >= {_double(wanted.above)}"] if wanted.above > -math.inf else []
        meant += [f"value <= {_double(wanted.below)}"] if wanted.below < math.inf else []
        of_score = f"run_id = {run} AND score = {literal(wanted.measure)}"
        parts.append(f"sample_id IN (SELECT sample_id FROM scores WHERE {' AND '.join([of_score, *meant])})")
    if wanted.about:
        meant = [f"name = {literal(wanted.about)}"]
        meant += [f"value = {literal(wanted.value)}"] if wanted.value else []
        meant += [f"number >= {wanted.at_least!r}"] if wanted.at_least > -math.inf else []
        meant += [f"number <= {wanted.at_most!r}"] if wanted.at_most < math.inf else []
        parts.append(f"sample_id IN (SELECT sample_id FROM metadata WHERE {' AND '.join(meant)})")
    if wanted.region:
        mapped = literal(source_run(connection, "embedding", run_id))
        parts.append(inside(f"SELECT sample_id, x, y FROM embedding WHERE run_id = {mapped}", wanted.region))
    if wanted.outline:
        for score in wanted.plane:
            require_name(connection, "score", "scores", run_id, score)
        parts.append(inside(score_plane(run_id, *wanted.plane), wanted.outline))
    parts += _decided(wanted)
    return " AND ".join(parts)


def _decided(wanted: Filter) -> list[str]:
    """The conditions on decisions. As standing.Standing.meets has them, in memory."""
    meant = [f"action = {literal(wanted.decision)}"] if wanted.decision in get_args(Action) else []
    meant += ["disputed"] if wanted.decision == "disputed" else []
    meant += [f"author = {literal(wanted.author)}"] if wanted.author else []
    listed = f"(SELECT sample_id FROM decisions{' WHERE ' if meant else ''}{' AND '.join(meant)})"
    parts = ["sample_id NOT IN (SELECT sample_id FROM decisions)"] if wanted.decision == "undecided" else []
    return parts + ([f"sample_id IN {listed}"] if meant or wanted.decision == "decided" else [])


def population(run_id: str, split: str) -> str:
    """The samples of a split as an SQL condition; "all" is the training samples and what else the run has judged.

    Raises: SpecError for another split
    """
    check_choice("split", split, Split)
    if split != "all":
        return f"split = {literal(split)}"
    judged = f"SELECT sample_id FROM shortlist WHERE run_id = {literal(run_id)}"
    return f"(split = 'train' OR sample_id IN ({judged}))"


def fetch_cards(
    connection: duckdb.DuckDBPyConnection, run_id: str, ids: Sequence[int], score: str = ""
) -> pd.DataFrame:
    """What a thumbnail shows, in the order of ids: sample_id, split, label, true_label, suggested_label, value (of the
    score), p_wrong, flagged (on the shortlist), thumbnail (WebP bytes). NA where unknown;
    p_wrong also where the run's networks cannot tell; flagged is false for every sample of a run without a shortlist."""
    return fetch_sql(
        connection,
        f"""SELECT sample_id, split, label, true_label, suggested_label, value, p_wrong,
        coalesce(listed, false) AS flagged, thumbnail
        FROM (SELECT unnest($ids::INTEGER[]) AS sample_id, unnest(range(len($ids::INTEGER[]))) AS place)
        JOIN samples USING (sample_id) LEFT JOIN images USING (sample_id)
        LEFT JOIN (SELECT sample_id, {SUGGESTED} AS suggested_label FROM suggestions
            WHERE run_id = $proposed AND sample_id IN (SELECT unnest($ids::INTEGER[])) GROUP BY sample_id) USING (sample_id)
        LEFT JOIN (SELECT sample_id, value FROM scores WHERE run_id = $run AND score = $score
            AND sample_id IN (SELECT unnest($ids::INTEGER[]))) USING (sample_id)
        LEFT JOIN (SELECT sample_id, if((SELECT any_value(noise) FROM verdict WHERE run_id = $run) IS NULL, NULL, p_wrong)
            AS p_wrong, listed FROM shortlist WHERE run_id = $run AND sample_id IN (SELECT unnest($ids::INTEGER[])))
            USING (sample_id) ORDER BY place""",
        {
            "ids": [int(i) for i in ids],
            "run": run_id,
            "score": score,
            "proposed": source_run(connection, "suggestions", run_id),
        },
    )


def fetch_labels(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """sample_id, label, true_label (-1 where unknown) of the training samples, by id: numbers only."""
    return fetch_sql(
        connection,
        "SELECT sample_id, CAST(label AS SMALLINT) AS label, CAST(coalesce(true_label, -1) AS SMALLINT) AS true_label "
        "FROM samples WHERE split = 'train' ORDER BY sample_id",
    )


def fetch_sample(connection: duckdb.DuckDBPyConnection, sample_id: int) -> dict[str, object] | None:
    """sample_id, split, label, true_label (None where unknown), class_name, source of one sample; None if there is none."""
    frame = fetch_sql(connection, "SELECT * FROM samples WHERE sample_id = ?", [sample_id])
    if frame.empty:
        return None
    row = frame.astype(object).where(frame.notna(), None).iloc[0]
    return {str(name): value for name, value in row.items()}


def fetch_sample_scores(connection: duckdb.DuckDBPyConnection, run_id: str, sample_id: int) -> pd.DataFrame:
    """score, title, higher_means, value, percentile (0 = easiest .. 100 = hardest by rank) of one sample.

    Every score of a run covers the same samples, so that they are counted once: for each of twenty scores of a million
    samples it would take half a second.
    """
    found = fetch_sql(
        connection,
        "SELECT score, coalesce(title, score) AS title, higher_means, value, rank FROM scores LEFT JOIN score_catalog "
        "USING (score) WHERE run_id = ? AND sample_id = ? ORDER BY score",
        [run_id, sample_id],
    )
    if found.empty:
        return found.rename(columns={"rank": "percentile"})
    counted = "SELECT count(*) FROM scores WHERE run_id = ? AND score = ?"
    ((n,),) = connection.execute(counted, [run_id, found["score"][0]]).fetchall()
    return found.assign(percentile=100.0 * found["rank"] / max(n - 1, 1)).drop(columns="rank")


def fetch_sample_flags(connection: duckdb.DuckDBPyConnection, run_id: str, sample_id: int) -> pd.DataFrame:
    """rule, score (that the rule looks at), flagged, threshold, value (compared with it) of one sample."""
    return fetch_sql(
        connection,
        "SELECT rule, score, flagged, threshold, value FROM flags WHERE run_id = ? AND sample_id = ? ORDER BY rule",
        [run_id, sample_id],
    )


def fetch_trajectory(connection: duckdb.DuckDBPyConnection, run_id: str, sample_id: int) -> pd.DataFrame:
    """One sample's dynamics: a row per seed and epoch with the columns of the view `dynamics`."""
    return fetch_sql(
        connection,
        "SELECT * EXCLUDE (run_id, sample_id) FROM dynamics WHERE run_id = ? AND sample_id = ? ORDER BY seed, epoch",
        [source_run(connection, "dynamics", run_id), sample_id],
    )


def fetch_sample_logits(connection: duckdb.DuckDBPyConnection, run_id: str, sample_id: int) -> pd.DataFrame:
    """seed, epoch, then one column per class (named 0 .. C-1) of one sample; empty where logits were not kept."""
    frame = fetch_sql(
        connection,
        "SELECT seed, epoch, logits FROM logits WHERE run_id = ? AND sample_id = ? ORDER BY seed, epoch",
        [source_run(connection, "logits", run_id), sample_id],
    )
    if frame.empty:
        return frame[["seed", "epoch"]]
    return pd.concat([frame[["seed", "epoch"]], pd.DataFrame(np.stack(frame["logits"].to_list()))], axis=1)


def fetch_neighbors(connection: duckdb.DuckDBPyConnection, run_id: str, sample_id: int) -> pd.DataFrame:
    """rank, neighbor_id, similarity (cosine) of one sample's neighbors, the nearest first."""
    return fetch_sql(
        connection,
        "SELECT rank, neighbor_id, similarity FROM neighbors WHERE run_id = ? AND sample_id = ? ORDER BY rank",
        [source_run(connection, "neighbors", run_id), sample_id],
    )


def require_name(connection: duckdb.DuckDBPyConnection, kind: str, view: str, run_id: str, name: str) -> int:
    """How many rows a run has of a score or rule; SpecError, with the nearest name, when it has none.

    Only that name is counted, which DuckDB finds by the range of its row groups: all names of twenty scores of a million
    samples would take ten times as long as to read the ranks of one.
    """
    counted = f"SELECT count(*) FROM {view} WHERE run_id = ? AND {kind} = ?"
    ((n,),) = connection.execute(counted, [run_id, name]).fetchall()
    if not n:
        known = connection.execute(f"SELECT DISTINCT {kind} FROM {view} WHERE run_id = ?", [run_id]).fetchall()
        raise SpecError(unknown_name(kind, name, [row[0] for row in known], f"of run {run_id}"))
    return int(n)


def score_plane(run_id: str, x: str, y: str) -> str:
    """The values of two scores of a run as SQL: sample_id, x, y."""
    of = f"FROM scores WHERE run_id = {literal(run_id)} AND score ="
    return (
        f"SELECT sample_id, x, y FROM (SELECT sample_id, value AS x {of} {literal(x)}) "
        f"JOIN (SELECT sample_id, value AS y {of} {literal(y)}) USING (sample_id)"
    )


def inside(places: str, outline: Outline) -> str:
    """The samples inside a closed outline, as an SQL condition over sample_id.

    Even-odd rule: a point is inside when a ray to its right crosses the outline an odd number of times.

    Args: places: SQL that gives sample_id, x, y
    """
    corners = [f"{_double(x)}, {_double(y)}" for x, y in outline]
    sides = ", ".join(f"({one}, {other})" for one, other in zip(corners, [*corners[1:], corners[0]], strict=True))
    xs, ys = zip(*outline, strict=True)
    within = f"e.x <= {_double(max(xs))} AND e.y BETWEEN {_double(min(ys))} AND {_double(max(ys))}"
    return (
        f"sample_id IN (SELECT e.sample_id FROM ({places}) AS e, (VALUES {sides}) AS side(x1, y1, x2, y2) "
        f"WHERE {within} AND (y1 > e.y) <> (y2 > e.y) "
        "AND e.x < (x2 - x1) * (e.y - y1) / (y2 - y1) + x1 GROUP BY e.sample_id HAVING count(*) % 2 = 1)"
    )


def _double(value: float) -> str:
    """A finite number as SQL: without an exponent it would be a decimal, with which DuckDB counts several times longer."""
    text = repr(float(value))
    return text if "e" in text else f"{text}e0"


def _tuple(labels: Sequence[int]) -> str:
    return "(" + ", ".join(str(int(label)) for label in labels) + ")"
