"""What relabelings found: suggested labels by confidence, what they gain, and whether their confidence holds. No torch."""

from __future__ import annotations

import duckdb
import pandas as pd

from engine.queries.connection import fetch_sql

CONFIDENCES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)
"""Confidences from which on suggestions are counted."""


def fetch_suggesting(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """run_id, method, title, n (suggestions of training samples) of the relabelings, the newest first."""
    return fetch_sql(
        connection,
        "SELECT run_id, any_value(method) AS method, any_value(title) AS title, count(*) AS n FROM suggestions "
        "JOIN runs USING (run_id) WHERE kind = 'relabel' GROUP BY run_id ORDER BY max(created_at) DESC, run_id",
    )


def fetch_proposed(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """sample_id, suggested_label, confidence of a relabeling, by sample."""
    return fetch_sql(
        connection,
        "SELECT sample_id, suggested_label, confidence FROM suggestions WHERE run_id = ? ORDER BY sample_id",
        [run_id],
    )


def fetch_changes(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """How many labels a relabeling would change: from, labels, expected, right; a row for each of CONFIDENCES.

    from: the least confidence; labels: how many suggestions have it; expected: their mean confidence, NA of none; right:
    the share of them that is the true label, NA where none of these is known
    """
    return fetch_sql(
        connection,
        """SELECT least AS "from", count(sample_id) AS labels, avg(confidence) AS expected,
        avg(CAST(suggested_label = true_label AS INTEGER)) AS "right"
        FROM (SELECT unnest($confidences::DOUBLE[]) AS least) LEFT JOIN (SELECT sample_id, suggested_label, true_label,
            confidence FROM suggestions JOIN samples USING (sample_id) WHERE run_id = $run) ON confidence >= least
        GROUP BY least ORDER BY least""",
        {"run": run_id, "confidences": list(CONFIDENCES)},
    )


def fetch_reliability(connection: duckdb.DuckDBPyConnection, run_id: str, bins: int = 10) -> pd.DataFrame:
    """Whether the confidence holds: low, high (edges of a bin), n, confidence (mean), right (share that is the true label).

    Of the suggestions of samples whose true label is known; bins without one are left out. Empty where none is known.
    """
    return fetch_sql(
        connection,
        """SELECT bin / $bins AS low, (bin + 1) / $bins AS high, count(*) AS n, avg(confidence) AS confidence,
        avg(CAST(suggested_label = true_label AS INTEGER)) AS "right"
        FROM (SELECT *, least(CAST(floor(confidence * $bins) AS INTEGER), $bins - 1) AS bin
            FROM suggestions JOIN samples USING (sample_id) WHERE run_id = $run AND true_label IS NOT NULL)
        GROUP BY bin ORDER BY bin""",
        {"run": run_id, "bins": bins},
    )


def fetch_relabelings(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """The networks of a relabeling, as the mean over seeds: subset, kept_fraction, learner, samples, noise, noise_left,
    accuracy, accuracy_true, select_seconds, seconds, seeds."""
    return fetch_sql(
        connection,
        """SELECT subset, kept_fraction, learner, CAST(avg(samples) AS INTEGER) AS samples, avg(noise) AS noise,
        avg(noise_left) AS noise_left, avg(accuracy) AS accuracy, avg(accuracy_true) AS accuracy_true,
        avg(select_seconds) AS select_seconds, avg(seconds) AS seconds, count(*) AS seeds
        FROM relabelings WHERE run_id = ? GROUP BY subset, kept_fraction, learner
        ORDER BY kept_fraction, subset <> 'all', subset DESC, learner <> 'cross-entropy', learner""",
        [run_id],
    )


def fetch_relabel_bins(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """How often labels are right by NLI, over seeds: subset, kept_fraction, learner, bin, low, high, samples, right_given,
    right_corrected; a row for each bin with samples."""
    return fetch_sql(
        connection,
        """SELECT subset, kept_fraction, learner, bin, avg(low) AS low, avg(high) AS high, CAST(sum(samples) AS INTEGER)
        AS samples, sum(right_given * samples) / sum(samples) AS right_given,
        sum(right_corrected * samples) / sum(samples) AS right_corrected FROM relabel_bins WHERE run_id = ?
        GROUP BY subset, kept_fraction, learner, bin ORDER BY kept_fraction, subset DESC, learner, bin""",
        [run_id],
    )
