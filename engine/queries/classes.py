"""Classes against one another: which labels a run would change into which, and how much of each class looks wrong. No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import duckdb
import pandas as pd

from engine.fields import check_choice
from engine.queries.connection import SUGGESTED, fetch_sql, source_run
from engine.queries.samples import Filter, condition, population

Against = Literal["suggested", "true"]


def fetch_confusions(
    connection: duckdb.DuckDBPyConnection, run_id: str, wanted: Filter, against: Against = "suggested"
) -> pd.DataFrame:
    """label (given), other, n (samples): every pair of labels that occurs, the given label itself among the others.

    A sample's other label is the one that the run suggests, the given one where it suggests none; or the true label, for
    samples of which it is known. Conditions on labels are not looked at: `cell` makes those that choose one pair.

    Raises: SpecError for a score or rule that the run does not have
    """
    check_choice("against", against, Against)
    free = replace(wanted, labels=(), others=(), suggested=(), truth="")
    passing = f"{population(run_id, wanted.split)} AND {condition(connection, run_id, free) or 'true'}"
    if against == "true":
        return fetch_sql(
            connection,
            f"""SELECT label, true_label AS other, count(*) AS n FROM samples
            WHERE true_label IS NOT NULL AND {passing} GROUP BY ALL ORDER BY label, other""",
        )
    return fetch_sql(
        connection,
        f"""SELECT label, coalesce(suggested, label) AS other, count(*) AS n
        FROM (SELECT sample_id, label FROM samples WHERE {passing})
        LEFT JOIN (SELECT sample_id, {SUGGESTED} AS suggested FROM suggestions WHERE run_id = $run GROUP BY sample_id)
        USING (sample_id) GROUP BY ALL ORDER BY label, other""",
        {"run": source_run(connection, "suggestions", run_id)},
    )


def cell(wanted: Filter, against: Against, label: int, other: int) -> Filter:
    """The filter that chooses exactly the samples of one pair of `fetch_confusions`."""
    free = replace(wanted, labels=(label,), others=(), suggested=(), truth="")
    if against == "suggested":
        return replace(free, suggested=(other,))
    # Of samples with an unknown true label `others` takes the suggested one: what is known to be wrong or right leaves
    # them out.
    return replace(free, others=(other,), truth="right" if label == other else "wrong")


def suggests(connection: duckdb.DuckDBPyConnection, run_id: str) -> bool:
    """Whether a run, or the run whose dynamics it reads, suggests labels."""
    source = source_run(connection, "suggestions", run_id)
    return connection.execute("SELECT 1 FROM suggestions WHERE run_id = ? LIMIT 1", [source]).fetchone() is not None


def fetch_class_quality(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """How much of each class looks wrong: a row per class, by the estimated number of wrong labels, the largest first.

    label, class_name, n (samples with that given label, of the training part and what else was judged), share (of all
    n), wrong (estimated number of wrong labels: the sum of p_wrong), noise (wrong / judged samples), flagged (on the
    shortlist), kept, dropped, relabeled, undecided (of the flagged, by the latest decision), known_wrong, precision
    (of the flagged whose truth is known, the share that is wrong). NaN where unknown: wrong and noise in a run whose
    networks cannot tell, known_wrong and precision where no truth is known.
    """
    return fetch_sql(
        connection,
        f"""WITH judged AS (SELECT sample_id, p_wrong, listed FROM shortlist WHERE run_id = $run
            AND (SELECT any_value(noise) FROM verdict WHERE run_id = $run) IS NOT NULL),
        counted AS (SELECT label, count(*) AS n, sum(p_wrong) AS wrong, sum(p_wrong) / count(p_wrong) AS noise,
            count(*) FILTER (listed) AS flagged,
            count(*) FILTER (action = 'keep') AS kept, count(*) FILTER (action = 'drop') AS dropped,
            count(*) FILTER (action = 'relabel') AS relabeled,
            count(*) FILTER (listed AND action IS NULL) AS undecided,
            count(*) FILTER (label <> true_label) AS known_wrong, count(true_label) AS known,
            count(*) FILTER (listed AND label <> true_label)
                / nullif(count(*) FILTER (listed AND true_label IS NOT NULL), 0) AS precision
            FROM samples LEFT JOIN judged USING (sample_id)
            LEFT JOIN (SELECT sample_id, action FROM decisions) USING (sample_id)
            WHERE {population(run_id, "all")} GROUP BY label)
        SELECT label, class_name, coalesce(n, 0) AS n, coalesce(n, 0) / greatest(sum(n) OVER (), 1) AS share, wrong, noise,
            coalesce(flagged, 0) AS flagged, coalesce(kept, 0) AS kept, coalesce(dropped, 0) AS dropped,
            coalesce(relabeled, 0) AS relabeled, coalesce(undecided, 0) AS undecided,
            if(known > 0, known_wrong, NULL) AS known_wrong, precision
        FROM classes LEFT JOIN counted USING (label)
        ORDER BY wrong DESC NULLS LAST, flagged DESC, known_wrong DESC NULLS LAST, label""",
        {"run": run_id},
    )
