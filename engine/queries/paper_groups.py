"""What the papers' figures show of classes and of groups of samples: read-only SQL -> DataFrame. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd

from engine.queries.connection import fetch_sql, source_run

GROUP_SAMPLES = 1_000
"""Samples of a group whose trajectories are averaged (LSTM, figure 1)."""


def fetch_class_scores(connection: duckdb.DuckDBPyConnection, run_id: str, score: str) -> pd.DataFrame:
    """label, class_name, n (training samples), mean, spread (standard deviation) of a score; the lowest mean first (CG,
    figure 8). Values that are no finite numbers are left out."""
    return fetch_sql(
        connection,
        """SELECT label, any_value(class_name) AS class_name, count(*) AS n, avg(value) AS mean,
        coalesce(stddev_pop(value), 0) AS spread
        FROM scores JOIN samples USING (sample_id) WHERE run_id = $run AND score = $score AND isfinite(value)
        GROUP BY label ORDER BY mean, label""",
        {"run": run_id, "score": score},
    )


def fetch_class_histograms(
    connection: duckdb.DuckDBPyConnection, run_id: str, score: str, labels: Sequence[int], bins: int = 30
) -> pd.DataFrame:
    """label, left, right, n: the values of a score in some classes, in bins of equal width over all of these classes."""
    return fetch_sql(
        connection,
        """WITH v AS (SELECT value, label FROM scores JOIN samples USING (sample_id)
            WHERE run_id = $run AND score = $score AND isfinite(value) AND list_contains($labels, label)),
        edge AS (SELECT CAST(min(value) AS DOUBLE) AS low, greatest(max(value) - min(value), 1e-9) / $bins AS width FROM v)
        SELECT CAST(label AS INTEGER) AS label, low + bin * width AS "left", low + (bin + 1) * width AS "right", count(*) AS n
        FROM (SELECT *, least(CAST(floor((value - low) / width) AS INTEGER), $bins - 1) AS bin FROM v, edge)
        GROUP BY label, bin, low, width ORDER BY label, bin""",
        {"run": run_id, "score": score, "labels": [int(label) for label in labels], "bins": bins},
    )


def fetch_class_ends(
    connection: duckdb.DuckDBPyConnection, run_id: str, score: str, labels: Sequence[int], most: int
) -> pd.DataFrame:
    """label, highest (bool), place (0, 1, ...), sample_id: the samples of some classes with the highest and the lowest values
    of a score, at most `most` of each; of a small class none is both."""
    return fetch_sql(
        connection,
        """WITH placed AS (SELECT label, sample_id, count(*) OVER (PARTITION BY label) AS n,
            row_number() OVER (PARTITION BY label ORDER BY value DESC, rank DESC) - 1 AS top,
            row_number() OVER (PARTITION BY label ORDER BY value, rank) - 1 AS bottom
            FROM scores JOIN samples USING (sample_id)
            WHERE run_id = $run AND score = $score AND isfinite(value) AND list_contains($labels, label))
        SELECT CAST(label AS INTEGER) AS label, top < $most AND top <= bottom AS highest,
        if(top < $most AND top <= bottom, top, bottom) AS place, sample_id FROM placed
        WHERE (top < $most AND top <= bottom) OR (bottom < $most AND bottom < top) ORDER BY label, highest DESC, place""",
        {"run": run_id, "score": score, "labels": [int(label) for label in labels], "most": most},
    )


def fetch_group_curves(connection: duckdb.DuckDBPyConnection, run_id: str, known: bool) -> pd.DataFrame:
    """wrong (bool), epoch, n (samples), mean, spread: p_given over the epochs, its mean and its standard deviation over up
    to 1,000 samples of each group, in the first seed (LSTM, figure 1).

    known: the groups are samples with right and with wrong labels; else those off and on the run's shortlist. A group
    without samples has no rows.
    """
    groups = (
        "SELECT sample_id, label <> true_label AS wrong FROM samples WHERE split = 'train' AND true_label IS NOT NULL"
        if known
        else "SELECT sample_id, listed AS wrong FROM shortlist JOIN samples USING (sample_id) "
        "WHERE run_id = $run AND split = 'train'"
    )
    given = {"dynamics": source_run(connection, "epochs", run_id)} | ({} if known else {"run": run_id})
    return fetch_sql(
        connection,
        # multiplied by an odd number, ids are in no order of classes or files
        f"""WITH groups AS ({groups}), drawn AS (SELECT * FROM groups
            QUALIFY row_number() OVER (PARTITION BY wrong ORDER BY (sample_id * 2654435761) % 4294967296)
            <= {GROUP_SAMPLES})
        SELECT wrong, epoch, count(*) AS n, avg(p_given) AS mean, coalesce(stddev_pop(p_given), 0) AS spread
        FROM dynamics JOIN drawn USING (sample_id) WHERE run_id = $dynamics
        AND seed = (SELECT min(seed) FROM dynamics WHERE run_id = $dynamics)
        GROUP BY wrong, epoch ORDER BY wrong, epoch""",
        given,
    )


def fetch_found(connection: duckdb.DuckDBPyConnection, run_id: str, score: str, known: bool, most: int) -> pd.DataFrame:
    """sample_id, label, true_label (-1 where unknown), value: the training samples that a score ranks highest.

    known: only those whose label is known to be wrong, which the score has found
    """
    only = "AND label <> true_label" if known else ""
    return fetch_sql(
        connection,
        f"""SELECT sample_id, label, coalesce(true_label, -1) AS true_label, value FROM scores JOIN samples USING (sample_id)
        WHERE run_id = $run AND score = $score AND split = 'train' {only} ORDER BY rank DESC LIMIT $most""",
        {"run": run_id, "score": score, "most": most},
    )


def fetch_threshold_rule(connection: duckdb.DuckDBPyConnection, run_id: str, percentile: float) -> pd.DataFrame:
    """round, threshold, flagged (samples, by all rounds together), precision, recall (0..1, NaN where unknown) of the rule
    `aum_threshold` at a percentile (0..100) of the threshold samples' AUM (AUM, figures 3, 4 and 7).

    As the rule is at 99: a sample is flagged when its AUM is at or below the threshold of every round in which it was no
    threshold sample. Empty for a run that kept no rounds.
    """
    return fetch_sql(
        connection,
        """WITH alpha AS (SELECT round, CAST(quantile_cont(CAST(aum AS DOUBLE), $share) AS FLOAT) AS threshold
            FROM threshold_rounds WHERE run_id = $run AND threshold_sample GROUP BY round),
        judged AS (SELECT sample_id, bool_and(threshold_sample OR aum <= threshold) AS flagged
            FROM threshold_rounds JOIN alpha USING (round) WHERE run_id = $run GROUP BY sample_id),
        counted AS (SELECT count(*) FILTER (flagged) AS flagged,
            count(*) FILTER (flagged AND label <> true_label)
                / nullif(count(*) FILTER (flagged AND true_label IS NOT NULL), 0) AS precision,
            count(*) FILTER (flagged AND label <> true_label)
                / nullif(count(*) FILTER (label <> true_label), 0) AS recall
            FROM judged JOIN samples USING (sample_id))
        SELECT round, CAST(threshold AS DOUBLE) AS threshold, flagged, precision, recall FROM alpha, counted ORDER BY round""",
        {"run": run_id, "share": percentile / 100},
    )


def fetch_threshold_samples(connection: duckdb.DuckDBPyConnection, run_id: str, most: int = 200) -> pd.DataFrame:
    """aum: of the threshold samples of a run, in ascending order; of more than `most` every k-th."""
    return fetch_sql(
        connection,
        """WITH placed AS (SELECT aum, row_number() OVER (ORDER BY aum) - 1 AS place, count(*) OVER () AS n
            FROM threshold_rounds WHERE run_id = $run AND threshold_sample)
        SELECT CAST(aum AS DOUBLE) AS aum FROM placed WHERE place % CAST(ceil(n / $most) AS INTEGER) = 0 ORDER BY aum""",
        {"run": run_id, "most": most},
    )
