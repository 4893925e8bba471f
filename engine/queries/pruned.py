"""What stands behind the points of a psi-curve and behind the epoch of a score: read-only SQL -> DataFrame. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import duckdb
import numpy as np
import pandas as pd

from engine.queries.connection import fetch_sql, source_run
from engine.store.attached import open_walled
from engine.store.journal import psi_points, read_journal
from engine.store.schema import VIEWS
from engine.store.tables import DERIVED, RESULT_TABLES, complete_select
from engine.store.workspace import Workspace

EPOCH_COLUMNS = {
    "el2n": ("el2n", "harder"),
    "loss": ("loss_last", "harder"),
    "margin": ("margin_last", "easier"),
}
"""Columns of the dynamics that are a score at every epoch: the score, which takes @epoch, and what high means."""

JUDGED_SAMPLES = 20_000
"""Samples that are enough to measure the quality of a score at every epoch; of larger sets every k-th is taken."""


def fetch_kept_sets(
    connection: duckdb.DuckDBPyConnection,
    scores_run: str | None,
    sampler: str,
    score: str | None,
    pruned: tuple[int, ...],
) -> pd.DataFrame:
    """What an order, by its sampler and the score that it reads, keeps at each number pruned.

    Returns: pruned, kept, smallest, largest (samples of a class), noise (0..1)

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
    if sampler == "oracle" and not unknown:
        found["noise"] = (wrong - found["pruned"]).clip(lower=0) / found["kept"]
    if sampler not in ("ascending", "descending"):  # which samples these keep is decided while a curve is trained
        return found
    step = int(np.gcd.reduce(found["pruned"])) or n
    counts = fetch_sql(
        connection,
        """SELECT (if($reverse, $n - 1 - rank, rank)) // $step AS stretch, label, count(*) AS samples,
        count(*) FILTER (label <> true_label) AS wrong FROM scores JOIN samples USING (sample_id)
        WHERE run_id = $run AND score = $score AND split = 'train' GROUP BY ALL""",
        {"reverse": sampler == "descending", "n": n, "step": step, "run": scores_run, "score": score},
    )
    if counts.empty:
        return found
    classes = counts.pivot_table(index="stretch", columns="label", values="samples", aggfunc="sum", fill_value=0)
    mislabeled = counts.groupby("stretch")["wrong"].sum()
    starts = range(n // step + 1)
    left = classes.reindex(starts, fill_value=0)[::-1].cumsum()[::-1].loc[found["pruned"] // step]
    found["smallest"], found["largest"] = left.min(axis=1).to_numpy(), left.max(axis=1).to_numpy()
    if not unknown:
        stays = mislabeled.reindex(starts, fill_value=0)[::-1].cumsum()[::-1].loc[found["pruned"] // step]
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
    given = workspace.read_record(run_id).spec.get("orders")
    orders = [order for order in given if isinstance(order, str)] if isinstance(given, list) else []
    points = [
        {**point, "run_id": run_id, "order": order}
        for point in psi_points(read_journal(workspace.run_dir(run_id)))
        for order in ([point["order"]] if point["order"] else orders)  # the full set is trained once for all orders
    ]
    named = fetch_orders({str(point["order"]) for point in points})
    frame = pd.DataFrame(points, columns=[c for c in VIEWS["psi"].columns if c not in named or c == "order"])
    return frame.merge(named, on="order", how="left")[list(VIEWS["psi"].columns)]


def fetch_orders(names: Iterable[str]) -> pd.DataFrame:
    """The parts of the names of orders: order, score, reversed, sampler, options (JSON), as in the view `psi`."""
    with open_walled([]) as connection:
        source = '(SELECT unnest($names::VARCHAR[]) AS "order")'
        columns = {name: RESULT_TABLES["psi"][name] for name in ("order", *DERIVED["psi"])}
        return fetch_sql(connection, complete_select("psi", ["order"], columns, source), {"names": list(names)})


def window_offsets(psi: pd.DataFrame) -> pd.DataFrame:
    """The points of window experiments among those of `fetch_psi` or `fetch_psi_journal`.

    Returns: their rows, with offset (share of the ranks below the window, 0..1)
    """
    windows = psi[psi["sampler"] == "window"].reset_index(drop=True)
    return windows.assign(offset=[float(json.loads(options).get("offset", 0)) for options in windows["options"]])
