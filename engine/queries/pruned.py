"""What stands behind the points of a psi-curve and behind the epoch of a score: read-only SQL -> DataFrame. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pandas as pd

from engine.queries.connection import fetch_sql, source_run
from engine.store.journal import read_journal
from engine.store.schema import VIEWS
from engine.store.workspace import Workspace

EPOCH_COLUMNS = {
    "el2n": ("el2n", "harder"),
    "loss": ("loss_last", "harder"),
    "margin": ("margin_last", "easier"),
}
"""Columns of the dynamics that are a score at every epoch: the score, which takes @epoch, and what high means."""

JUDGED_SAMPLES = 20_000
"""Samples that are enough to tell the quality of a score at every epoch; of larger sets every k-th is taken."""


def fetch_kept_sets(
    connection: duckdb.DuckDBPyConnection, scores_run: str | None, order: str, pruned: tuple[int, ...]
) -> pd.DataFrame:
    """What an order keeps at each number pruned: pruned, kept, smallest, largest (samples of a class), noise (0..1).

    Only what is certain: smallest and largest of an order by a score whose ranks are there, noise also of the oracle
    where the truth of every sample is known; else NaN. Exact, whatever the size: samples are counted by the stretch
    of ranks between two points.
    """
    n, wrong, unknown = (
        int(v)
        for v in fetch_sql(
            connection,
            "SELECT count(*), count(*) FILTER (label <> true_label), count(*) - count(true_label) FROM samples "
            "WHERE split = 'train'",
        ).iloc[0]
    )
    found = pd.DataFrame({"pruned": sorted(set(pruned))})
    found["kept"] = n - found["pruned"]
    found[["smallest", "largest", "noise"]] = np.nan
    if order == "oracle" and not unknown:
        found["noise"] = (wrong - found["pruned"]).clip(lower=0) / found["kept"]
    if order in ("random", "oracle"):  # permutations that are drawn while a curve is trained, not scores of that name
        return found
    step = int(np.gcd.reduce(found["pruned"])) or n
    counts = fetch_sql(
        connection,
        """SELECT (if($reverse, $n - 1 - rank, rank)) // $step AS stretch, label, count(*) AS samples,
        count(*) FILTER (label <> true_label) AS wrong FROM scores JOIN samples USING (sample_id)
        WHERE run_id = $run AND score = $score AND split = 'train' GROUP BY ALL""",
        {"reverse": order.endswith("*"), "n": n, "step": step, "run": scores_run, "score": order.removesuffix("*")},
    )
    if counts.empty:
        return found
    classes = counts.pivot_table(index="stretch", columns="label", values="samples", aggfunc="sum", fill_value=0)
    mislabelled = counts.groupby("stretch")["wrong"].sum()
    starts = range(n // step + 1)
    left = classes.reindex(starts, fill_value=0)[::-1].cumsum()[::-1].loc[found["pruned"] // step]
    found["smallest"], found["largest"] = left.min(axis=1).to_numpy(), left.max(axis=1).to_numpy()
    if not unknown:
        stays = mislabelled.reindex(starts, fill_value=0)[::-1].cumsum()[::-1].loc[found["pruned"] // step]
        found["noise"] = stays.to_numpy() / found["kept"].to_numpy()
    return found


def fetch_epoch_quality(connection: duckdb.DuckDBPyConnection, run_id: str, column: str) -> pd.DataFrame:
    """How a score of one epoch changes with that epoch: epoch, roc_auc (NaN without known noise), stability.

    The values are means over seeds. stability: Spearman correlation of the ranks with those of the next epoch, NaN at
    the last one. Both over at most 20,000 samples. column: one of EPOCH_COLUMNS
    """
    sign = -1 if EPOCH_COLUMNS[column][1] == "easier" else 1
    return fetch_sql(
        connection,
        f"""WITH size AS (SELECT ceil(count(*) / {JUDGED_SAMPLES}) AS every FROM samples WHERE split = 'train'),
        means AS (SELECT epoch, sample_id, avg("{column}") * {sign} AS value FROM dynamics, size
            WHERE run_id = $run AND sample_id % CAST(every AS INTEGER) = 0 GROUP BY epoch, sample_id),
        ranked AS (SELECT epoch, sample_id, label <> true_label AS wrong,
            rank() OVER (PARTITION BY epoch ORDER BY value)
            + (count(*) OVER (PARTITION BY epoch, value) - 1) / 2 AS place FROM means JOIN samples USING (sample_id)),
        quality AS (SELECT epoch, count(*) FILTER (wrong) AS bad, count(*) FILTER (NOT wrong) AS good,
            sum(place) FILTER (wrong) AS places FROM (SELECT epoch, wrong,
                rank() OVER (PARTITION BY epoch ORDER BY place)
                + (count(*) OVER (PARTITION BY epoch, place) - 1) / 2 AS place
                FROM ranked WHERE wrong IS NOT NULL) GROUP BY epoch),
        steady AS (SELECT a.epoch, corr(a.place, b.place) AS stability
            FROM ranked a JOIN ranked b ON a.sample_id = b.sample_id AND b.epoch = a.epoch + 1 GROUP BY a.epoch)
        SELECT epoch, if(bad * good > 0, (places - bad * (bad + 1) / 2) / (bad * good), NULL) AS roc_auc, stability
        FROM (SELECT DISTINCT epoch FROM ranked) LEFT JOIN quality USING (epoch) LEFT JOIN steady USING (epoch)
        ORDER BY epoch""",
        {"run": source_run(connection, "epochs", run_id)},
    )


def fetch_psi(connection: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> pd.DataFrame:
    """run_id, order, seed, pruned, kept_fraction, accuracy, seconds of several psi runs."""
    return fetch_sql(
        connection,
        'SELECT * FROM psi WHERE run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY run_id, "order", pruned, seed',
        [list(run_ids)],
    )


def fetch_psi_journal(workspace: Workspace, run_id: str) -> pd.DataFrame:
    """The points a psi run that is not published yet has journalled, with the columns of `fetch_psi`."""
    orders = workspace.read_spec(run_id)["spec"].get("orders", [])
    points = [
        {**point, "run_id": run_id, "order": order}
        for event in read_journal(workspace.run_dir(run_id))
        if event["event"] == "psi_points"  # one line for each finished stack of networks
        for point in event["points"]
        for order in ([point["order"]] if point["order"] else orders)  # the full set is trained once for all orders
    ]
    return pd.DataFrame(points, columns=list(VIEWS["psi"].columns))


def window_offsets(psi: pd.DataFrame) -> pd.DataFrame:
    """The points of window experiments among those of `fetch_psi` or `fetch_psi_journal`.

    Returns: their rows, with score and offset (share of the ranks below the window, 0..1)
    """
    parts = psi["order"].str.extract(r"^window\((?P<score>[^,]+),offset=(?P<offset>[0-9.e-]+)\)$")
    return psi.join(parts.astype({"offset": float}))[parts["score"].notna()].reset_index(drop=True)
