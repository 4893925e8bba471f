"""Two scores held against each other, of one run or of two, and one score held against a threshold."""

from __future__ import annotations

import math
from typing import Literal

import duckdb
import numpy as np
import pandas as pd

from engine.fields import check_choice
from engine.queries.clouds import BEFORE, Plane
from engine.queries.connection import fetch_sql
from engine.queries.samples import Filter, Ids, condition
from engine.store.sql import literal

SAMPLED = 20_000
"""Where many correlations are wanted at once, so many samples are enough: their standard error is 0.007."""


def _of(run_id: str, score: str) -> str:
    return f"FROM scores WHERE run_id = {literal(run_id)} AND score = {literal(score)}"


def _ranks(plane: Plane) -> str:
    """sample_id, rx, ry: the two stored ranks of every sample that has both, as shares 0 = easiest .. 1, as SQL."""
    x_run = plane.x_run or plane.run_id
    x, y = f"FROM {BEFORE}" if x_run == BEFORE else _of(x_run, plane.x), _of(plane.run_id, plane.y)
    share = "rank / greatest(1, (SELECT max(rank) {}))"
    return (
        f"SELECT sample_id, rx, ry FROM (SELECT sample_id, {share.format(x)} AS rx {x}) "
        f"JOIN (SELECT sample_id, {share.format(y)} AS ry {y}) USING (sample_id)"
    )


def fetch_pair_spearman(connection: duckdb.DuckDBPyConnection, plane: Plane, sampled: bool = False) -> float:
    """Spearman correlation of two scores over the samples that have both, turned so that higher = harder.

    Ranks are averaged over ties; NaN where a score is constant.

    Args: sampled: over at most about SAMPLED samples, always the same ones
    """

    step = 1
    if sampled:
        ((n,),) = connection.execute(f"SELECT count(*) {_of(plane.run_id, plane.y)}").fetchall()
        step = max(1, n // SAMPLED)

    def oriented(run_id: str, score: str) -> str:
        way = connection.execute(
            "SELECT any_value(higher_means) FROM score_catalog WHERE score = ?", [score]
        ).fetchall()
        sign, some = "-" if way[0][0] == "easier" else "", f" AND hash(sample_id) % {step} = 0" if step > 1 else ""
        return f"SELECT sample_id, {sign}value AS value {_of(run_id, score)} AND NOT isnan(value){some}"

    x, y = oriented(plane.x_run or plane.run_id, plane.x), oriented(plane.run_id, plane.y)
    both = f"SELECT a.value AS x, b.value AS y FROM ({x}) AS a JOIN ({y}) AS b USING (sample_id)"
    ranks = ", ".join(f"rank() OVER (ORDER BY {c}) + (count(*) OVER (PARTITION BY {c}) - 1) / 2 AS r{c}" for c in "xy")
    sql = f"SELECT corr(rx, ry) FROM (SELECT {ranks} FROM ({both}))"
    (found,) = connection.execute(sql).fetchall()[0]
    return math.nan if found is None else float(found)


def fetch_spearman(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """Spearman correlation of every two scores of a run, oriented so that higher = harder: a square frame.

    Ranks are averaged over ties; a score that is constant correlates with nothing (NaN). Where a score is not known of
    some samples, the others take part with the ranks that they have among all.
    """
    catalog = connection.execute(
        "SELECT score, any_value(higher_means) FROM scores LEFT JOIN score_catalog USING (score) WHERE run_id = ? "
        "GROUP BY score ORDER BY score",
        [run_id],
    ).fetchall()
    size = connection.execute(
        "SELECT coalesce(max(sample_id), -1) + 1 FROM scores WHERE run_id = ?", [run_id]
    ).fetchall()
    ranks = np.full((len(catalog), size[0][0]), np.nan, np.float32)  # exact to 8 million samples
    for row, (score, way) in zip(ranks, catalog, strict=True):
        found = connection.execute(f"SELECT sample_id, value {_of(run_id, score)} AND NOT isnan(value)").fetchnumpy()
        values = np.asarray(found["value"], np.float32)
        row[np.asarray(found["sample_id"])] = mean_ranks(-values if way == "easier" else values)
    names = pd.Index([score for score, _ in catalog], name="score")
    return pd.DataFrame(_correlations(ranks), names, names)


def mean_ranks(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The place of each value in ascending order, from 0; equal values share the mean of theirs."""
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(values) else np.empty(0, int)
    counts = np.diff(np.append(starts, len(values)))
    found = np.empty(len(values))
    found[order] = np.repeat(starts + (counts - 1) / 2, counts)
    return found


def _correlations(
    rows: np.ndarray[tuple[int, int], np.dtype[np.float32]], step: int = 1 << 16
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Pearson correlation of every two rows over the columns that both have: NaN where one does not vary there."""
    k = len(rows)
    n, sums, squares, products = (np.zeros((k, k)) for _ in range(4))
    # In double precision, and with it all that is computed from here on.
    center = np.array([np.nanmean(row) if np.isfinite(row).any() else 0.0 for row in rows], np.float64)[:, None]
    for start in range(0, rows.shape[1], step):
        part = rows[:, start : start + step] - center
        known = np.isfinite(part)
        value, there = np.where(known, part, 0.0), known.astype(float)
        n += there @ there.T
        sums += value @ there.T
        squares += (value * value) @ there.T
        products += value @ value.T
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = squares - sums * sums / n
        found: np.ndarray[tuple[int, int], np.dtype[np.float64]] = (products - sums * sums.T / n) / np.sqrt(
            spread * spread.T
        )
    found[(spread <= 1e-9 * squares) | (spread <= 1e-9 * squares).T] = np.nan
    return np.clip(found, -1, 1)


def fetch_jaccard(connection: duckdb.DuckDBPyConnection, plane: Plane, top: int) -> tuple[int, int]:
    """How many samples are among the `top` hardest by both scores, and by either: their Jaccard index is the quotient."""

    def hardest(run_id: str, score: str) -> str:
        of = _of(run_id, score)
        return f"SELECT sample_id {of} AND rank > (SELECT max(rank) {of}) - {int(top)}"

    x, y = hardest(plane.x_run or plane.run_id, plane.x), hardest(plane.run_id, plane.y)
    ((both, one, other),) = connection.execute(
        f"SELECT (SELECT count(*) FROM ({x}) WHERE sample_id IN ({y})), (SELECT count(*) FROM ({x})), "
        f"(SELECT count(*) FROM ({y}))"
    ).fetchall()
    return int(both), int(one + other - both)


def fetch_apart(
    connection: duckdb.DuckDBPyConnection,
    plane: Plane,
    wanted: Filter,
    harder: Literal["x", "y", "either"],
    most: int = 12,
) -> Ids:
    """The samples on which two scores disagree most, the widest gap between their ranks first: (n,) int32.

    harder: by which of the two they are the harder ones; either: whichever
    """
    check_choice("harder", harder, Literal["x", "y", "either"])
    gap = {"x": "rx - ry", "y": "ry - rx", "either": "abs(rx - ry)"}[harder]
    where = condition(connection, plane.run_id, wanted) or "true"
    found = fetch_sql(
        connection,
        f"""SELECT sample_id FROM ({_ranks(plane)}) WHERE {gap} > 0
        AND sample_id IN (SELECT sample_id FROM samples WHERE {where}) ORDER BY round({gap}, 9) DESC, sample_id LIMIT $most""",
        {"most": most},
    )
    ids: Ids = found["sample_id"].to_numpy(np.int32)
    return ids


def fetch_moved(connection: duckdb.DuckDBPyConnection, plane: Plane) -> tuple[float, float]:
    """Where the samples known to be mislabeled stand on average by the two ranks, 0 = easiest .. 1; NaN without any."""
    (row,) = connection.execute(
        f"SELECT avg(rx), avg(ry) FROM ({_ranks(plane)}) JOIN samples USING (sample_id) WHERE true_label <> label"
    ).fetchall()
    return (math.nan, math.nan) if row[0] is None else (float(row[0]), float(row[1]))


# One score and a threshold ---------------------------------------------------------------------------------------


def fetch_thresholds(connection: duckdb.DuckDBPyConnection, run_id: str, score: str, bins: int = 400) -> pd.DataFrame:
    """edge, n, wrong, known: a score in bins of equal width, turned so that higher = harder, from the easiest on.

    A bin holds the samples from its edge on to before the next edge; the first one all that lie below as well, the last
    one all above, such as infinite ones: few far ones would squeeze all others otherwise. wrong: known to be mislabeled;
    known: of known truth. So the sums from a bin on are what a threshold at its edge flags. Empty without a finite value.
    """
    way = connection.execute("SELECT any_value(higher_means) FROM score_catalog WHERE score = ?", [score]).fetchall()
    sign = "-" if way[0][0] == "easier" else ""
    return fetch_sql(
        connection,
        f"""WITH v AS (SELECT {sign}value::DOUBLE AS o, label, true_label FROM scores JOIN samples USING (sample_id)
            WHERE run_id = $run AND score = $score AND NOT isnan(value)),
        ends AS (SELECT min(o) AS first, max(o) AS last, quantile_disc(o, [0.001, 0.999]) AS m FROM v WHERE isfinite(o)),
        edges AS (SELECT if(squeezed, m[1], first) AS low, greatest(if(squeezed, m[2], last) - low, 1e-12) / $bins AS width
            FROM (SELECT *, m[2] > m[1] AND last - first > 4 * (m[2] - m[1]) AS squeezed FROM ends)),
        near AS (SELECT *, greatest(0, least($bins - 1, floor((o - low) / width)))::INTEGER AS i FROM v, edges),
        -- the quotient may round across an edge
        counted AS (SELECT i - if(i > 0 AND o < low + i * width, 1, 0)
            + if(i < $bins - 1 AND o >= low + (i + 1) * width, 1, 0) AS bin,
            count(*) AS n, count(*) FILTER (label <> true_label) AS wrong, count(true_label) AS known
            FROM near GROUP BY bin)
        SELECT low + i * width AS edge, coalesce(n, 0)::INTEGER AS n, coalesce(wrong, 0)::INTEGER AS wrong,
            coalesce(known, 0)::INTEGER AS known
        FROM edges, range(CAST($bins AS INTEGER)) AS r(i) LEFT JOIN counted ON bin = i WHERE low IS NOT NULL ORDER BY i""",
        {"run": run_id, "score": score, "bins": bins},
    )


# Two runs ---------------------------------------------------------------------------------------------------------


def fetch_shared_scores(connection: duckdb.DuckDBPyConnection, one: str, other: str) -> list[str]:
    """The scores that both of two runs have, by name."""
    rows = connection.execute(
        "SELECT score FROM scores WHERE run_id = ? INTERSECT SELECT score FROM scores WHERE run_id = ? ORDER BY 1",
        [one, other],
    ).fetchall()
    return [str(score) for (score,) in rows]


def fetch_shared_spearman(connection: duckdb.DuckDBPyConnection, one: str, other: str) -> pd.DataFrame:
    """score, spearman (of its values in the two runs, NaN where constant) of every score that both runs have."""
    names = fetch_shared_scores(connection, one, other)
    found = [fetch_pair_spearman(connection, Plane(other, name, name, x_run=one), True) for name in names]
    return pd.DataFrame({"score": names, "spearman": found})


def fetch_shared_flags(connection: duckdb.DuckDBPyConnection, one: str, other: str, most: int = 12) -> pd.DataFrame:
    """side (both, first, second), n (samples on the shortlist of both runs or of one), ids (at most `most` of them, the
    most suspicious first): three rows."""
    listed = "SELECT sample_id, rank FROM shortlist WHERE listed AND run_id ="
    found = fetch_sql(
        connection,
        f"""SELECT side, count(*) AS n, list(sample_id ORDER BY place, sample_id)[:$most] AS ids FROM (
            SELECT sample_id, coalesce(least(a.rank, b.rank), a.rank, b.rank) AS place,
            CASE WHEN b.rank IS NULL THEN 'first' WHEN a.rank IS NULL THEN 'second' ELSE 'both' END AS side
            FROM ({listed} $one) AS a FULL JOIN ({listed} $other) AS b USING (sample_id)) GROUP BY side""",
        {"one": one, "other": other, "most": most},
    )
    known = {str(row["side"]): row for row in found.to_dict("records")}
    sides = ("both", "first", "second")
    return pd.DataFrame(
        {
            "side": sides,
            "n": [int(known[side]["n"]) if side in known else 0 for side in sides],
            "ids": [[int(i) for i in known[side]["ids"]] if side in known else [] for side in sides],
        }
    )
