"""What a dataset and its runs hold, in tables: read-only SQL -> DataFrame. No torch."""

from __future__ import annotations

from typing import Any

import duckdb
import pandas as pd

from engine.queries.connection import fetch_sql, source_run


def fetch_evaluation(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """How well every score and rule of every run finds the mislabeled, where the truth is known.

    run_id, name, kind (score or rule); of a score roc_auc, average_precision, precision_at_recall_95, recall_at_10, recall_at_20,
    recall_at_30; of a rule flagged_share, precision, recall; all 0..1, NA where it does not apply. The best average
    precision first, then the rules by precision.
    """
    return fetch_sql(
        connection,
        """SELECT run_id, score AS name,
        if(metric IN ('flagged_share', 'precision', 'recall'), 'rule', 'score') AS kind,
        any_value(value) FILTER (metric = 'roc_auc') AS roc_auc,
        any_value(value) FILTER (metric = 'average_precision') AS average_precision,
        any_value(value) FILTER (metric = 'precision_at_recall_95') AS precision_at_recall_95,
        any_value(value) FILTER (metric = 'recall_at_10') AS recall_at_10,
        any_value(value) FILTER (metric = 'recall_at_20') AS recall_at_20,
        any_value(value) FILTER (metric = 'recall_at_30') AS recall_at_30,
        any_value(value) FILTER (metric = 'flagged_share') AS flagged_share,
        any_value(value) FILTER (metric = 'precision') AS precision,
        any_value(value) FILTER (metric = 'recall') AS recall
        FROM metrics GROUP BY run_id, score, kind
        ORDER BY kind DESC, average_precision DESC NULLS LAST, precision DESC NULLS LAST, run_id, name""",
    )


def fetch_detection_curve(connection: duckdb.DuckDBPyConnection, run_id: str, score: str) -> pd.DataFrame:
    """looked_at, found: the share of the mislabeled among the hardest share of a score (CG, figure 3); 0..1.

    100 steps and the origin; empty where no label is known to be wrong. A step that ends within a tie finds the share of
    it that it reaches, as `engine.scores.evaluation.find_shares` does. A random order gives found = looked_at, an
    oracle min(1, looked_at / noise rate).
    """
    return fetch_sql(
        connection,
        # one row for each distinct value; `before` samples lie above it
        """WITH tied AS (SELECT count(*) AS n, count(*) FILTER (label <> true_label) AS bad, max(rank) AS top
            FROM scores JOIN samples USING (sample_id)
            WHERE run_id = $run AND score = $score AND true_label IS NOT NULL GROUP BY value),
        placed AS (SELECT n, bad, sum(n) OVER (ORDER BY top DESC) - n AS before FROM tied),
        steps AS (SELECT step / 100 AS looked_at, round((SELECT sum(n) FROM tied) * step / 100) AS upto
            FROM range(101) AS r(step))
        SELECT looked_at, sum(bad * greatest(0, least(1, (upto - before) / n))) / sum(bad) AS found
        FROM steps, placed GROUP BY looked_at HAVING sum(bad) > 0 ORDER BY looked_at""",
        {"run": run_id, "score": score},
    )


def fetch_costs(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """score, title, cost, seconds, run_id: what each score took in the newest run that has it."""
    return fetch_sql(
        connection,
        """SELECT score, score_catalog.title, cost, score_costs.seconds, run_id FROM score_costs
        JOIN score_catalog USING (score) JOIN runs USING (run_id)
        QUALIFY row_number() OVER (PARTITION BY score ORDER BY created_at DESC, run_id) = 1
        ORDER BY score_costs.seconds DESC, score""",
    )


def fetch_dataset(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The row of the view `dataset`, with `train`, `test`, `known` (train samples of known truth), `wrong`, `skipped`."""
    frame = fetch_sql(
        connection,
        """SELECT dataset.*, counts.*, (SELECT count(*) FROM skipped) AS skipped FROM dataset, (SELECT
        count(*) FILTER (split = 'train') AS train, count(*) FILTER (split = 'test') AS test,
        count(true_label) FILTER (split = 'train') AS known,
        count(*) FILTER (split = 'train' AND label <> true_label) AS wrong FROM samples) AS counts""",
    )
    row = frame.astype(object).where(frame.notna(), None).iloc[0]
    return {str(name): value for name, value in row.items()}


def fetch_classes(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """label, class_name, train, test (samples), wrong (train samples known to be mislabeled), in label order."""
    return fetch_sql(
        connection,
        """SELECT label, class_name, coalesce(train, 0) AS train, coalesce(test, 0) AS test, coalesce(wrong, 0) AS wrong
        FROM classes LEFT JOIN (SELECT label, count(*) FILTER (split = 'train') AS train,
            count(*) FILTER (split = 'test') AS test, count(*) FILTER (split = 'train' AND true_label <> label) AS wrong
            FROM samples GROUP BY label) USING (label) ORDER BY label""",
    )


def fetch_transition_matrix(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """true_label, label, count, share (of the true label's samples): only the pairs that occur."""
    return fetch_sql(connection, "SELECT * FROM transition_matrix ORDER BY true_label, label")


def fetch_runs(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The published runs, newest first: run_id, kind, title, created_at, seconds, dynamics_run, notes."""
    return fetch_sql(
        connection,
        "SELECT run_id, kind, title, created_at, seconds, dynamics_run, notes FROM runs ORDER BY created_at DESC, run_id",
    )


def fetch_epochs(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """seed, epoch, train_loss, train_accuracy, test_accuracy (NaN without a test split), lr, seconds."""
    return fetch_sql(
        connection,
        "SELECT seed, epoch, train_loss, train_accuracy, test_accuracy, lr, seconds FROM epochs WHERE run_id = ? "
        "ORDER BY seed, epoch",
        [source_run(connection, "epochs", run_id)],
    )


def fetch_catalog(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """The scores of a run: score, title, higher_means, evidence, value_min, value_max, source, roc_auc,
    average_precision, version.

    roc_auc and average_precision are NaN where the truth is not known; version: of the formula, 1 where the run was
    written before formulas had one.
    """
    return fetch_sql(
        connection,
        """SELECT score, title, coalesce(higher_means, 'harder') AS higher_means, evidence, value_min, value_max, source,
        roc_auc, average_precision, coalesce(version, 1) AS version
        FROM (SELECT DISTINCT score FROM scores WHERE run_id = $run)
        LEFT JOIN score_catalog USING (score)
        LEFT JOIN (SELECT score, any_value(value) FILTER (metric = 'roc_auc') AS roc_auc,
              any_value(value) FILTER (metric = 'average_precision') AS average_precision
              FROM metrics WHERE run_id = $run GROUP BY score) USING (score)
        LEFT JOIN (SELECT score, version FROM score_costs WHERE run_id = $run) USING (score)
        ORDER BY score""",
        {"run": run_id},
    )


def fetch_ranges(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """score, n (samples), low, high (smallest and largest value that occurs) of the scores of a run."""
    return fetch_sql(
        connection,
        "SELECT score, count(*) AS n, min(value) AS low, max(value) AS high FROM scores WHERE run_id = ? GROUP BY score "
        "ORDER BY score",
        [run_id],
    )


def fetch_rules(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """The flag rules of a run: rule, score, flagged, judged (samples), thresholds (distinct, sorted), precision, recall,
    why_unused (why it is left out of the vote, empty where it is not).

    precision and recall are over the judged samples whose truth is known; NaN where none is.
    """
    return fetch_sql(
        connection,
        # every threshold once: a list of those of all samples would be a million of one number
        """SELECT rule, any_value(score) AS score, count(*) FILTER (flagged) AS flagged, count(*) AS judged,
        coalesce((SELECT list_sort(list(threshold)) FROM (SELECT DISTINCT rule, threshold FROM flags
            WHERE run_id = $run AND threshold IS NOT NULL) AS t WHERE t.rule = flags.rule), []) AS thresholds,
        count(*) FILTER (flagged AND label <> true_label)
            / nullif(count(*) FILTER (flagged AND true_label IS NOT NULL), 0) AS precision,
        count(*) FILTER (flagged AND label <> true_label)
            / nullif(count(*) FILTER (label <> true_label), 0) AS recall,
        coalesce((SELECT any_value(why_unused) FROM rules WHERE rules.run_id = $run AND rules.rule = flags.rule), '')
            AS why_unused
        FROM flags JOIN samples USING (sample_id) WHERE run_id = $run GROUP BY rule ORDER BY rule""",
        {"run": run_id},
    )


def fetch_histogram(connection: duckdb.DuckDBPyConnection, run_id: str, score: str, bins: int = 60) -> pd.DataFrame:
    """left, right, clean, mislabeled, unknown (samples) of equal-width bins from the smallest to the largest value."""
    return fetch_sql(
        connection,
        """WITH v AS (SELECT value, true_label, label FROM scores JOIN samples USING (sample_id)
            WHERE run_id = $run AND score = $score AND isfinite(value)),
        edge AS (SELECT CAST(min(value) AS DOUBLE) AS low, greatest(max(value) - min(value), 1e-9) / $bins AS width FROM v),
        counted AS (SELECT least(CAST(floor((value - low) / width) AS INTEGER), $bins - 1) AS bin,
            count(*) FILTER (true_label = label) AS clean, count(*) FILTER (true_label <> label) AS mislabeled,
            count(*) FILTER (true_label IS NULL) AS unknown FROM v, edge GROUP BY bin)
        SELECT low + i * width AS "left", low + (i + 1) * width AS "right", coalesce(clean, 0) AS clean,
            coalesce(mislabeled, 0) AS mislabeled, coalesce(unknown, 0) AS unknown
        FROM edge, range(CAST($bins AS INTEGER)) AS r(i) LEFT JOIN counted ON bin = i WHERE low IS NOT NULL ORDER BY i""",
        {"run": run_id, "score": score, "bins": bins},
    )


def fetch_score(connection: duckdb.DuckDBPyConnection, run_id: str, score: str) -> pd.DataFrame:
    """sample_id, value, rank of one score, by sample_id: numbers only, for charts of whole sets."""
    return fetch_sql(
        connection,
        "SELECT sample_id, value, rank FROM scores WHERE run_id = ? AND score = ? ORDER BY sample_id",
        [run_id, score],
    )
