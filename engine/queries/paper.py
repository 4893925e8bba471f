"""What the figures of the papers show: read-only SQL -> DataFrame. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from engine.errors import StorageError
from engine.queries.connection import fetch_sql, source_run
from engine.store.documents import number, read_json
from engine.store.workspace import Workspace

AVERAGED_SAMPLES = 50
"""Samples of a group whose logits are averaged (AUM, figure 2)."""

DECILE_SAMPLES = 50_000
"""Samples that are enough for the mean curves of ten groups; of larger sets every k-th is taken."""


def fetch_score_runs(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """run_id, name (a score), newest run first: which run has which scores."""
    return fetch_sql(
        connection,
        "SELECT run_id, score AS name FROM (SELECT DISTINCT run_id, score FROM scores) JOIN runs USING (run_id) "
        "ORDER BY created_at DESC, run_id, score",
    )


def fetch_order_runs(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """run_id, name (an order), newest run first: which psi run has which orders."""
    return fetch_sql(
        connection,
        'SELECT run_id, name FROM (SELECT DISTINCT run_id, "order" AS name FROM psi) JOIN runs USING (run_id) '
        "ORDER BY created_at DESC, run_id, name",
    )


def fetch_windows(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The points of the newest window experiment of each score: run_id, score, offset (0..1), seed, accuracy (0..1).

    Kept is half of the samples, from the share `offset` of the ranks on.
    """
    return fetch_sql(
        connection,
        """SELECT run_id, score, coalesce(CAST(options->>'offset' AS DOUBLE), 0) AS "offset", seed, accuracy
        FROM psi JOIN runs USING (run_id) WHERE sampler = 'window'
        QUALIFY dense_rank() OVER (PARTITION BY score ORDER BY created_at DESC, run_id) = 1
        ORDER BY score, "offset", seed""",
    )


def fetch_decile_curves(connection: duckdb.DuckDBPyConnection, run_id: str, score: str) -> pd.DataFrame:
    """decile (0 = easiest), epoch, loss, accuracy (0..1): means over seeds and the samples of each tenth of a score."""
    return fetch_sql(
        connection,
        f"""WITH size AS (SELECT count(*) AS n FROM scores WHERE run_id = $run AND score = $score),
        groups AS (SELECT sample_id, CAST(10 * rank // n AS INTEGER) AS decile FROM scores, size
            WHERE run_id = $run AND score = $score AND sample_id % CAST(ceil(n / {DECILE_SAMPLES}) AS INTEGER) = 0)
        SELECT decile, epoch, avg(loss) AS loss, avg(CAST(correct AS INTEGER)) AS accuracy
        FROM dynamics JOIN groups USING (sample_id) WHERE run_id = $dynamics GROUP BY ALL ORDER BY decile, epoch""",
        {"run": run_id, "score": score, "dynamics": source_run(connection, "epochs", run_id)},
    )


def fetch_logit_groups(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """Mean logits of easy, hard and mislabeled samples of one class (AUM, figure 2).

    The class is that of the given label which most often stands for one other class; easy and hard are its clean
    samples of the smallest and the largest loss in the last epoch, mislabeled those of that other class.

    Returns: part (easy, hard, mislabeled), given, other (classes), n (samples), epoch, label, logit; empty without
             known noise or kept logits. The first seed that kept its logits.
    """
    dynamics = source_run(connection, "epochs", run_id)
    return fetch_sql(
        connection,
        f"""WITH pair AS (SELECT label AS given, true_label AS other FROM samples
            WHERE split = 'train' AND label <> true_label GROUP BY ALL ORDER BY count(*) DESC, given, other LIMIT 1),
        last AS (SELECT sample_id, avg(loss) AS loss FROM dynamics WHERE run_id = $run
            AND epoch = (SELECT max(epoch) FROM epochs WHERE run_id = $run) GROUP BY sample_id),
        members AS (SELECT sample_id, loss, true_label = label AS clean FROM samples JOIN pair ON label = given
            JOIN last USING (sample_id) WHERE split = 'train' AND true_label IN (given, other)),
        chosen AS ((SELECT sample_id, 'easy' AS part FROM members WHERE clean ORDER BY loss LIMIT {AVERAGED_SAMPLES})
            UNION ALL (SELECT sample_id, 'hard' FROM members WHERE clean ORDER BY loss DESC LIMIT {AVERAGED_SAMPLES})
            UNION ALL (SELECT sample_id, 'mislabeled' FROM members WHERE NOT clean ORDER BY sample_id
                LIMIT {AVERAGED_SAMPLES})),
        kept AS (SELECT sample_id, epoch, logits FROM logits WHERE run_id = $run
            AND seed = (SELECT min(seed) FROM logits WHERE run_id = $run)
            AND sample_id IN (SELECT sample_id FROM chosen)),
        long AS (SELECT sample_id, epoch, unnest(range(len(logits))) AS label, unnest(logits) AS logit FROM kept)
        SELECT part, any_value(given) AS given, any_value(other) AS other, count(*) AS n, epoch,
        CAST(long.label AS INTEGER) AS label, avg(logit) AS logit
        FROM long JOIN chosen USING (sample_id), pair GROUP BY part, epoch, long.label ORDER BY part, epoch, long.label""",
        {"run": dynamics},
    )


def fetch_margin_pair(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """The margins of one clean and one mislabeled sample (AUM, figure 6): sample_id, wrong, epoch, margin, aum.

    The clean one is at the tenth part of the clean that AUM finds hardest, where the two are hard to tell apart; the
    mislabeled one is their median. In the first seed; aum: mean margin so far. Empty without known noise or AUM.
    """
    return fetch_sql(
        connection,
        """WITH placed AS (SELECT sample_id, label <> true_label AS wrong,
            percent_rank() OVER (PARTITION BY label <> true_label ORDER BY rank DESC) AS hardness
            FROM scores JOIN samples USING (sample_id)
            WHERE run_id = $run AND score = 'aum' AND true_label IS NOT NULL),
        chosen AS (SELECT wrong, arg_min(sample_id, abs(hardness - if(wrong, 0.5, 0.1))) AS sample_id
            FROM placed GROUP BY wrong HAVING (SELECT count(DISTINCT wrong) FROM placed) = 2)
        SELECT sample_id, wrong, epoch, margin,
        avg(margin) OVER (PARTITION BY sample_id ORDER BY epoch) AS aum
        FROM dynamics JOIN chosen USING (sample_id) WHERE run_id = $dynamics
        AND seed = (SELECT min(seed) FROM dynamics WHERE run_id = $dynamics) ORDER BY wrong, epoch""",
        {"run": run_id, "dynamics": source_run(connection, "epochs", run_id)},
    )


def fetch_relabeling(connection: duckdb.DuckDBPyConnection, run_id: str, bins: int = 14) -> pd.DataFrame:
    """How often relabeling is right, by NLI (ROP, figure 3): left, right (the bin's edges), n, accuracy, given (0..1).

    The new label is the suggested one, the given one where nothing is suggested; accuracy: share that is the true label;
    given: the same of the labels as they are. Bins of equal width that hold samples of known truth.
    """
    return fetch_sql(
        connection,
        """WITH proposed AS (SELECT sample_id, arg_max(suggested_label, confidence) AS suggested_label FROM suggestions
            WHERE run_id = $source AND method = 'prediction_vote' GROUP BY sample_id),
        known AS (SELECT value, true_label = label AS was, true_label = coalesce(suggested_label, label) AS becomes
            FROM scores JOIN samples USING (sample_id) LEFT JOIN proposed USING (sample_id)
            WHERE run_id = $run AND score = 'nli' AND true_label IS NOT NULL),
        edge AS (SELECT CAST(min(value) AS DOUBLE) AS low, greatest(max(value) - min(value), 1e-9) / $bins AS width
            FROM known)
        SELECT low + bin * width AS "left", low + (bin + 1) * width AS "right", count(*) AS n,
        avg(CAST(becomes AS INTEGER)) AS accuracy, avg(CAST(was AS INTEGER)) AS given
        FROM (SELECT *, least(CAST(floor((value - low) / width) AS INTEGER), $bins - 1) AS bin FROM known, edge)
        GROUP BY bin, low, width ORDER BY bin""",
        {"run": run_id, "source": source_run(connection, "suggestions", run_id), "bins": bins},
    )


def fetch_velocity(workspace: Workspace, run_id: str, score: str) -> pd.DataFrame:
    """decile, epoch, until, velocity of a run and a score, as `winnow velocity` left them beside the run; else empty."""
    path, columns = workspace.velocity_path(run_id, score), ["decile", "epoch", "until", "velocity"]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    rows = read_json(path)
    whole = isinstance(rows, list) and all(
        isinstance(row, dict) and all(number(row.get(name), -1) >= 0 for name in columns) for row in rows
    )
    if not whole:
        raise StorageError(f"{path} is damaged; remove it, and winnow velocity computes it again")
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class GapStudy:
    """What `winnow gap` found (CG, figures 1 and 5).

    pair: two classes; points: sample_id, position of their samples, -1 at the mean of the first class, 1 at that of the second;
    inverse (B, B): of the kernel, for half as many samples of each, those of the first class first; convergence: ratio, runs,
    spearman, pearson of the mean over so many random subsets against the exact gap
    """

    pair: tuple[int, int]
    points: pd.DataFrame
    inverse: np.ndarray[Any, Any]
    convergence: pd.DataFrame


def fetch_gap_study(workspace: Workspace, run_id: str) -> GapStudy | None:
    """The study of the complexity gap that is kept beside a run; None where there is none."""
    path = workspace.gap_path(run_id)
    if not path.exists():
        return None
    found = read_json(path)
    try:
        tables = [np.array(found[name], float) for name in ("points", "inverse", "convergence")]
        points, inverse, convergence = tables
        pair = found["pair"]
        whole = (
            all(
                np.isfinite(table).all() and table.ndim == 2
                for table in (points, inverse, *([convergence] * bool(convergence.size)))
            )
            and points.shape[1] == 2
            and inverse.shape[0] == inverse.shape[1]
            and [type(label) for label in pair] == [int, int]
        )
        frames = [
            pd.DataFrame(points, columns=["sample_id", "position"]).astype({"sample_id": np.int32}),
            pd.DataFrame(convergence.reshape(-1, 4), columns=["ratio", "runs", "spearman", "pearson"]),
        ]
    except (TypeError, ValueError, KeyError, OverflowError):
        whole = False
    if not whole:
        raise StorageError(f"{path} is damaged; remove it, and winnow gap computes it again")
    return GapStudy((pair[0], pair[1]), frames[0], inverse, frames[1])
