"""What to believe of a run, and which of its samples are suspicious: the views `verdict` and `shortlist`. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import duckdb
import pandas as pd

from engine.queries.connection import SUGGESTED, fetch_sql, source_run

APART = 0.03
"""Two estimates of the share of wrong labels that differ by more than this, and by more than the interval is wide,
disagree: the verdict is to say so."""


@dataclass(frozen=True)
class Verdict:
    """What to believe of a run: the row of the view `verdict`, None where the view has NULL. Shares are 0..1."""

    run_id: str
    accuracy: float | None
    chance: float | None
    noise: float | None
    noise_low: float | None
    noise_high: float | None
    noise_joint: float | None
    noise_mixture: float | None
    score: str | None
    judged: int
    listed: int
    reason: str
    advice: str

    @property
    def tells(self) -> bool:
        """Whether the networks can tell which labels are wrong."""
        return self.noise is not None

    @property
    def disagrees(self) -> bool:
        """Whether the two estimates of the share of wrong labels differ by more than they may."""
        if self.noise_joint is None or self.noise_mixture is None:
            return False
        width = (self.noise_high or 0.0) - (self.noise_low or 0.0)
        return abs(self.noise_joint - self.noise_mixture) > max(APART, width)

    def sentences(self) -> list[str]:
        """The verdict in plain words: accuracy, share of wrong labels, the shortlist, the reason and what to do."""
        found = []
        if self.accuracy is not None:
            guess = "" if self.chance is None else f"; guessing the largest class: {percent(self.chance)}"
            found.append(f"Held-out predictions agree with {percent(self.accuracy)} of the given labels{guess}.")
        if self.noise is None:
            found.append("The networks cannot tell which labels are wrong, so no sample is flagged.")
        else:
            between = ""
            if self.noise_low is not None and self.noise_high is not None:
                between = f" (95 % interval: {percent(self.noise_low, False)} to {percent(self.noise_high)})"
            wrong = f"{round(self.noise * self.judged):,} of {self.judged:,}"
            found.append(f"About {percent(self.noise)} of the labels look wrong{between}: {wrong}.")
        if self.disagrees and self.noise_joint is not None and self.noise_mixture is not None:
            found.append(
                f"Two estimates disagree: {percent(self.noise_joint)} from the held-out predictions, "
                f"{percent(self.noise_mixture)} from how the suspicion is distributed. Do not rely on the number."
            )
        if self.noise is not None:
            by = f", ranked by {self.score}" if self.score else ""
            found.append(f"The {self.listed:,} most suspicious samples are on the shortlist{by}.")
        return [*found, *(text for text in (self.reason, self.advice) if text)]


def percent(share: float, sign: bool = True) -> str:
    """A share as it is shown: 8.1 %, 0.04 %, 100 %."""
    value = 100 * share
    text = f"{value:.1f}" if value >= 0.1 or value == 0 else f"{value:.2g}"
    return f"{text.removesuffix('.0')} %" if sign else text.removesuffix(".0")


def likely(p_wrong: float) -> str:
    """A p_wrong as it is shown, never as a certainty: 87 %, > 99 %, < 1 %."""
    return "> 99 %" if p_wrong > 0.99 else "< 1 %" if p_wrong < 0.01 else f"{100 * p_wrong:.0f} %"


def fetch_verdict(connection: duckdb.DuckDBPyConnection, run_id: str) -> Verdict | None:
    """The verdict of a run; None where it has none, as the runs of older versions."""
    names = [field.name for field in fields(Verdict)]
    row = connection.execute(f"SELECT {', '.join(names)} FROM verdict WHERE run_id = ?", [run_id]).fetchone()
    if row is None:
        return None
    found: dict[str, Any] = {name: None if value != value else value for name, value in zip(names, row, strict=True)}
    found |= {name: found[name] or "" for name in ("reason", "advice")}
    return Verdict(**found | {name: found[name] or 0 for name in ("judged", "listed")})


def fetch_verdicts(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """run_id, accuracy, noise (shares 0..1, NaN where unknown), judged, listed of every run with a verdict."""
    return fetch_sql(connection, "SELECT run_id, accuracy, noise, judged, listed FROM verdict ORDER BY run_id")


def fetch_shortlist(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """sample_id, rank (0 = the most suspicious), p_wrong (0..1), listed of every judged sample, by rank."""
    return fetch_sql(
        connection, "SELECT sample_id, rank, p_wrong, listed FROM shortlist WHERE run_id = ? ORDER BY rank", [run_id]
    )


def fetch_worst(connection: duckdb.DuckDBPyConnection, run_id: str, most: int = 10) -> pd.DataFrame:
    """The most suspicious samples of the shortlist: sample_id, split, p_wrong, class_name (given), suggested, source."""
    return fetch_sql(
        connection,
        f"""WITH worst AS (SELECT sample_id, rank, p_wrong FROM shortlist
            WHERE run_id = $run AND listed ORDER BY rank LIMIT $most),
        proposed AS (SELECT sample_id, {SUGGESTED} AS label FROM suggestions
            WHERE run_id = $proposed AND sample_id IN (SELECT sample_id FROM worst) GROUP BY sample_id)
        SELECT sample_id, split, p_wrong, samples.class_name, classes.class_name AS suggested, source
        FROM worst JOIN samples USING (sample_id) LEFT JOIN proposed USING (sample_id)
        LEFT JOIN classes ON classes.label = proposed.label ORDER BY rank""",
        {"run": run_id, "most": most, "proposed": source_run(connection, "suggestions", run_id)},
    )


def fetch_suspicion(connection: duckdb.DuckDBPyConnection, run_id: str, bins: int = 40) -> pd.DataFrame:
    """left, right, listed, rest: how many samples of the shortlist, and of the others, have a p_wrong in each bin.

    Equal bins from 0 to 1; a sample with p_wrong 1 is in the last. Empty for a run without a shortlist.
    """
    return fetch_sql(
        connection,
        """WITH counted AS (SELECT least(CAST(floor(p_wrong * $bins) AS INTEGER), $bins - 1) AS bin,
            count(*) FILTER (listed) AS listed, count(*) FILTER (NOT listed) AS rest
            FROM shortlist WHERE run_id = $run AND p_wrong BETWEEN 0 AND 1 GROUP BY bin)
        SELECT i / $bins AS "left", (i + 1) / $bins AS "right", coalesce(listed, 0) AS listed, coalesce(rest, 0) AS rest
        FROM range(CAST($bins AS INTEGER)) AS r(i) LEFT JOIN counted ON bin = i
        WHERE EXISTS (FROM counted) ORDER BY i""",
        {"run": run_id, "bins": bins},
    )


def fetch_suspect(connection: duckdb.DuckDBPyConnection, run_id: str, sample_id: int) -> pd.DataFrame:
    """rank (0 = the most suspicious), p_wrong (0..1), listed of one sample; no row where it was not judged."""
    return fetch_sql(
        connection,
        "SELECT rank, p_wrong, listed FROM shortlist WHERE run_id = ? AND sample_id = ?",
        [run_id, sample_id],
    )


def no_verdict(dataset: str, run_id: str) -> str:
    """What to say of a run without a verdict, and what to do."""
    return (
        f"run {run_id} has no verdict, so none of its samples is flagged: it was made by an older version, or recorded; "
        f"winnow run {dataset} makes a run with one"
    )
