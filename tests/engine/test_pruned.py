"""What stands behind the points of a curve and the epoch of a score, against counting and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from engine.queries import summaries
from engine.queries.connection import connect, connected
from engine.queries.pruned import EPOCH_COLUMNS, fetch_epoch_quality, fetch_kept_sets
from engine.store.workspace import Workspace

Opened = tuple[duckdb.DuckDBPyConnection, str]


@pytest.fixture(scope="module")
def opened(noisy: tuple[Path, str]) -> Opened:
    connection = connect(Workspace.open(noisy[0]), noisy[1])
    return connection, str(
        connection.execute("SELECT run_id FROM runs WHERE run_id IN (SELECT run_id FROM embedding)").fetchall()[0][0]
    )


@pytest.mark.parametrize("order", ["aum", "aum*"])
def test_what_an_order_keeps_is_what_counting_says(opened: Opened, order: str) -> None:
    connection, run = opened
    rows = connection.execute(
        "SELECT rank, label, true_label FROM scores JOIN samples USING (sample_id) WHERE run_id = ? AND score = 'aum'",
        [run],
    ).df()
    points = (0, len(rows) // 4, 3 * (len(rows) // 4), len(rows) - 1)
    found = fetch_kept_sets(connection, run, "descending" if order == "aum*" else "ascending", "aum", points)
    for row, pruned in zip(found.itertuples(), points, strict=True):
        kept = rows[rows["rank"] < len(rows) - pruned] if order == "aum*" else rows[rows["rank"] >= pruned]
        sizes = kept["label"].value_counts().reindex(range(10), fill_value=0)
        assert (row.pruned, row.kept) == (pruned, len(kept))
        assert (row.smallest, row.largest) == (sizes.min(), sizes.max())
        assert row.noise == pytest.approx((kept["label"] != kept["true_label"]).mean())


def test_the_oracle_keeps_a_known_share_of_noise_and_random_nothing_that_is_certain(opened: Opened) -> None:
    connection, run = opened
    facts = summaries.fetch_dataset(connection)
    oracle = fetch_kept_sets(connection, run, "oracle", None, (0, 20, 120))
    expected = [max(0, facts["wrong"] - pruned) / (facts["train"] - pruned) for pruned in (0, 20, 120)]
    assert oracle["noise"].to_numpy() == pytest.approx(expected)
    assert oracle["smallest"].isna().all()
    random = fetch_kept_sets(connection, run, "random", None, (0, 100))
    assert random["kept"].tolist() == [facts["train"], facts["train"] - 100]
    assert random[["smallest", "largest", "noise"]].isna().all(axis=None)


@pytest.mark.parametrize("run", ["none", None])
def test_without_the_run_of_its_scores_an_order_tells_only_the_size(opened: Opened, run: str | None) -> None:
    found = fetch_kept_sets(opened[0], run, "ascending", "aum", (0, 100))
    assert found["kept"].notna().all() and found[["smallest", "largest", "noise"]].isna().all(axis=None)


@pytest.mark.parametrize("column", EPOCH_COLUMNS)
def test_the_quality_of_each_epoch_is_that_of_its_values(opened: Opened, column: str) -> None:
    connection, run = opened
    rows = connection.execute(
        f'SELECT epoch, sample_id, avg("{column}") AS value, any_value(label <> true_label) AS wrong '
        "FROM dynamics JOIN samples USING (sample_id) WHERE run_id = ? GROUP BY ALL ORDER BY epoch, sample_id",
        [run],
    ).df()
    sign = -1 if EPOCH_COLUMNS[column][1] == "easier" else 1
    values = {epoch: some for epoch, some in rows.groupby("epoch")}
    found = fetch_epoch_quality(connection, run, column)
    assert found["epoch"].tolist() == list(values)
    expected = [roc_auc_score(some["wrong"], sign * some["value"]) for some in values.values()]
    assert found["roc_auc"].to_numpy() == pytest.approx(expected, abs=1e-4)  # ties of float32 means
    steady = [spearmanr(values[t]["value"], values[t + 1]["value"]).statistic for t in list(values)[:-1]]
    assert found["stability"].to_numpy()[:-1] == pytest.approx(np.array(steady), abs=1e-4)
    assert pd.isna(found["stability"].iloc[-1])


def test_a_clean_set_has_no_detection_but_a_stability(demo_workspace: Path) -> None:
    with connected(Workspace.open(demo_workspace), "digits") as connection:
        run = str(summaries.fetch_runs(connection)["run_id"][0])
        found = fetch_epoch_quality(connection, run, "el2n")
    assert found["roc_auc"].isna().all() and found["stability"].iloc[0] > 0
