"""What ROP's figures show of selections: accuracy by the share kept, and seconds to choose. Read-only SQL -> DataFrame."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pandas as pd

from engine.queries.connection import fetch_sql

CHOOSING = ("select", "beta", "neighbors", "keep")
"""Options of a relabeling by which samples are chosen; runs that are alike in all others can be compared."""


def fetch_selections(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The networks of relabelings that learned from a selection, those of the newest run first.

    Returns: run_id, alike (one text for runs whose options differ in CHOOSING alone), sampler (select of the run), neighbors,
             subset (rop, random, ...), kept_fraction, learner, seed, accuracy, noise (0..1, NaN where unknown), select_seconds
    """
    found = fetch_sql(
        connection,
        """SELECT run_id, CAST(spec AS VARCHAR) AS spec, subset, kept_fraction, learner, seed, accuracy, noise, select_seconds
        FROM relabelings JOIN runs USING (run_id) WHERE subset NOT IN ('all', 'without suspects')
        ORDER BY created_at DESC, run_id, subset, learner, kept_fraction, seed""",
    )
    known = {text: _alike(text) for text in found["spec"].unique()}
    for at, name in enumerate(("alike", "sampler", "neighbors")):
        found.insert(1 + at, name, [known[text][at] for text in found["spec"]])
    return found.drop(columns="spec")


def _alike(text: str) -> tuple[str, str, int]:
    """What a relabeling was given but for how it chooses, as one text; its sampler; its neighbors."""
    given: Any = json.loads(text)
    given = given if isinstance(given, dict) else {}
    neighbors = given.get("neighbors")
    rest = {name: value for name, value in given.items() if name not in CHOOSING}
    return (
        json.dumps(rest, sort_keys=True),
        str(given.get("select", "")),
        neighbors if type(neighbors) is int and 0 < neighbors <= 1_000 else 0,
    )


def fetch_selecting_seconds(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """What it takes to choose by each score: score, run_id, training, scoring (seconds), in the newest run that has it.

    training: of one network up to the epoch of a score such as el2n@5, else to the end; 0 for a score that needs none, NaN
    where that is not recorded; scoring: the score with its inputs
    """
    return fetch_sql(
        connection,
        """WITH newest AS (SELECT score, run_id, score_costs.seconds AS scoring, cost,
                TRY_CAST(regexp_extract(score, '@(\\d{1,6})$', 1) AS INTEGER) AS epoch
            FROM score_costs JOIN score_catalog USING (score) JOIN runs USING (run_id)
            QUALIFY row_number() OVER (PARTITION BY score ORDER BY created_at DESC, run_id) = 1),
        trained AS (SELECT newest.score, sum(e.seconds) AS training FROM newest JOIN runs USING (run_id)
            JOIN epochs e ON e.run_id = runs.dynamics_run AND e.epoch <= coalesce(newest.epoch, e.epoch)
                AND e.seed = (SELECT min(seed) FROM epochs WHERE run_id = runs.dynamics_run)
            WHERE newest.cost LIKE 'training%' GROUP BY newest.score)
        SELECT score, run_id, CASE WHEN cost LIKE 'training%' THEN training ELSE 0 END AS training, scoring
        FROM newest LEFT JOIN trained USING (score) ORDER BY score""",
    )
