"""What a curated set gains, from the networks of a proof: pairs, their mean difference and its interval. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pandas as pd

from engine.errors import NotFoundError
from engine.queries.connection import fetch_sql
from engine.store.journal import proof_networks, read_journal
from engine.store.schema import VIEWS
from engine.store.workspace import Workspace

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Gain:
    """The accuracy of networks trained on a curated set against those of the full set, paired by seed.

    full, curated: mean accuracies, 0..1; difference: mean of curated minus full; low, high: its 95 % interval, None
    with one pair; pairs: seeds whose two networks are trained; tested: samples that each pair was tested on; held_out:
    whether they were held out of the training set, others for each seed
    """

    full: float
    curated: float
    difference: float
    low: float | None
    high: float | None
    pairs: int
    tested: int
    held_out: bool

    @property
    def better(self) -> bool | None:
        """Whether the curated set is better, False where the full set is, None where no difference is shown."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return None
        return self.low > 0

    @property
    def sentence(self) -> str:
        """The gain in one sentence."""
        mean = f"{points(self.difference)} points"
        if self.low is None or self.high is None:
            return f"{mean} with one seed: no interval, so nothing is shown; --seeds 5 gives one"
        verdict = {True: "the curated set is better", False: "the full set is better", None: "no difference shown"}
        return f"{mean} ({points(self.low, False)} to {points(self.high, False)}): {verdict[self.better]}"

    @property
    def measured(self) -> str:
        """The two accuracies and what they were measured on, in one sentence."""
        what = "held-out training samples of each seed" if self.held_out else "test samples"
        seeds = "1 seed" if self.pairs == 1 else f"{self.pairs} seeds"
        return (
            f"accuracy {100 * self.curated:.1f} % with the curated set, {100 * self.full:.1f} % with the full set, "
            f"on {self.tested:,} {what}, mean of {seeds}"
        )


def points(share: float, sign: bool = True) -> str:
    """A difference in points of accuracy, to a tenth; -0.0 is written 0.0."""
    rounded = round(100 * share, 1) + 0.0
    return f"{rounded:+.1f}" if sign and rounded else f"{rounded:.1f}"


def compute_gain(pairs: pd.DataFrame, column: str = "accuracy") -> Gain | None:
    """The gain that the finished pairs of one proof show; None where no pair is finished, or the column is unknown.

    The interval is that of Student's t over the differences d of n seeds: mean(d) +- t(0.975, n - 1) s(d) sqrt(1 / n).
    Where each seed holds out another part of the training set its networks share samples, which would make that too
    narrow; 1 / n is then 1 / n + tested / trained (the corrected resampled t-test of Nadeau and Bengio 2003).

    Args: pairs: rows of the view `proofs` of one run; column: accuracy (given labels) or accuracy_true
    """
    wide = pairs.pivot_table(index="seed", columns="set", values=column, aggfunc="first").reindex(
        columns=["full", "curated"]
    )
    wide = wide.dropna()
    if wide.empty:
        return None
    differences = (wide["curated"] - wide["full"]).tolist()
    first = pairs[pairs["set"] == "full"].iloc[0]
    held_out = bool(first["held_out"])
    ratio = float(first["tested"] / first["samples"]) if held_out else 0.0
    low, high = interval(differences, ratio)
    mean = math.fsum(differences) / len(differences)
    return Gain(
        full=float(wide["full"].mean()),
        curated=float(wide["curated"].mean()),
        difference=mean,
        low=low,
        high=high,
        pairs=len(wide),
        tested=int(first["tested"]),
        held_out=held_out,
    )


def interval(differences: Sequence[float], ratio: float = 0.0) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean of n differences, see `compute_gain`; None, None of a single one.

    ratio: samples tested on / trained on where each was held out of the training set, else 0
    """
    n = len(differences)
    if n < 2:
        return None, None
    from scipy.special import stdtrit  # a quarter of a second to import; pages without a proof need none

    mean = math.fsum(differences) / n
    deviation = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * deviation * math.sqrt(1 / n + ratio)
    return mean - half, mean + half


def fetch_proof(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """The networks of a published proof: the rows of the view `proofs`, by seed, full before curated."""
    return fetch_sql(connection, 'SELECT * FROM proofs WHERE run_id = ? ORDER BY seed, "set" DESC', [run_id])


def fetch_gain(connection: duckdb.DuckDBPyConnection, run_id: str, column: str = "accuracy") -> Gain:
    """What a published proof shows; NotFoundError for a run that is none."""
    found = compute_gain(fetch_proof(connection, run_id), column)
    if found is None:
        raise NotFoundError(f"run {run_id} compares no curated set with the full one; winnow prove makes such a run")
    return found


def fetch_proof_journal(workspace: Workspace, run_id: str) -> pd.DataFrame:
    """The networks that a proof which is not published yet has journalled, with the columns of `fetch_proof`."""
    rows = [{**one, "run_id": run_id} for one in proof_networks(read_journal(workspace.run_dir(run_id)))]
    frame = pd.DataFrame(rows, columns=list(VIEWS["proofs"].columns))
    return frame.sort_values(["seed", "set"], ascending=[True, False], ignore_index=True)
