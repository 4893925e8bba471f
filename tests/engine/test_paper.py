"""What the papers' figures show, against pandas on the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from engine.queries import paper, summaries
from engine.queries.connection import connect
from engine.store.workspace import Workspace

Opened = tuple[duckdb.DuckDBPyConnection, str]


@pytest.fixture(scope="module")
def opened(noisy: tuple[Path, str]) -> Opened:
    connection = connect(Workspace.open(noisy[0]), noisy[1])
    return connection, str(
        connection.execute("SELECT run_id FROM runs WHERE run_id IN (SELECT run_id FROM embedding)").fetchall()[0][0]
    )


def ask(connection: duckdb.DuckDBPyConnection, sql: str, *given: object) -> pd.DataFrame:
    return connection.execute(sql, list(given)).df()


def test_the_runs_of_scores_and_of_orders_are_told_apart(opened: Opened) -> None:
    connection, run = opened
    scores = paper.fetch_score_runs(connection)
    assert {"aum", "cg"} <= set(scores.loc[scores["run_id"] == run, "name"])
    orders = paper.fetch_order_runs(connection)
    assert {"random", "oracle"} <= set(orders["name"]) and not set(scores["run_id"]) & set(orders["run_id"])
    kinds = summaries.fetch_runs(connection).set_index("run_id")["kind"]
    assert set(kinds[orders["run_id"]]) == {"psi"} and "psi" not in set(kinds[scores["run_id"]])


def test_deciles_average_the_dynamics_of_their_samples(opened: Opened) -> None:
    connection, run = opened
    found = paper.fetch_decile_curves(connection, run, "cg").set_index(["decile", "epoch"])
    rows = ask(
        connection,
        "SELECT rank, epoch, loss, correct FROM dynamics d JOIN scores s USING (sample_id) "
        "WHERE d.run_id = ? AND s.run_id = ? AND score = 'cg'",
        run,
        run,
    )
    rows["decile"] = 10 * rows["rank"] // (rows["rank"].max() + 1)
    expected = rows.groupby(["decile", "epoch"]).agg(loss=("loss", "mean"), accuracy=("correct", "mean"))
    assert len(found) == 10 * rows["epoch"].max()
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_index_type=False, rtol=1e-5)


def test_groups_of_logits_are_the_means_of_clean_and_of_confused_samples(opened: Opened) -> None:
    connection, run = opened
    found = paper.fetch_logit_groups(connection, run)
    given, other = int(found["given"][0]), int(found["other"][0])
    pairs = ask(connection, "SELECT label, true_label FROM samples WHERE label <> true_label").value_counts()
    assert pairs.loc[given, other] == pairs.max()
    wrong = ask(
        connection,
        "SELECT avg(logits[?]) AS logit FROM logits JOIN samples USING (sample_id) "
        "WHERE run_id = ? AND label = ? AND true_label = ? AND epoch = 3",
        given + 1,
        run,
        given,
        other,
    )["logit"][0]
    row = found[(found["part"] == "mislabeled") & (found["epoch"] == 3) & (found["label"] == given)].iloc[0]
    assert row["n"] == pairs.max() and row["logit"] == pytest.approx(wrong, rel=1e-5)
    last = found[(found["epoch"] == found["epoch"].max()) & (found["label"] == given)].set_index("part")["logit"]
    few = found.loc[found["part"] == "easy", "n"].max() < paper.AVERAGED_SAMPLES  # all of the class are both
    assert last["easy"] == last["hard"] if few else last["easy"] > last["hard"]


def test_a_clean_sample_and_a_mislabeled_one_show_their_margins(opened: Opened) -> None:
    connection, run = opened
    found = paper.fetch_margin_pair(connection, run)
    assert found.groupby("wrong")["sample_id"].nunique().tolist() == [1, 1]
    assert len(found) == 2 * found["epoch"].nunique() and found["epoch"].max() == found["epoch"].nunique()
    for _, one in found.groupby("wrong"):
        assert np.allclose(one["aum"], one["margin"].expanding().mean(), atol=1e-5)
        labels = ask(
            connection,
            "SELECT label <> true_label AS wrong FROM samples WHERE sample_id = ?",
            int(one["sample_id"].iloc[0]),
        )
        assert bool(labels["wrong"][0]) == bool(one["wrong"].iloc[0])


def test_relabeling_counts_every_sample_once(opened: Opened) -> None:
    connection, run = opened
    found = paper.fetch_relabeling(connection, run)
    facts = summaries.fetch_dataset(connection)
    assert found["n"].sum() == facts["known"] and len(found) <= 14
    assert (found["given"] * found["n"]).sum() == pytest.approx(facts["train"] - facts["wrong"])
    votes = ask(
        connection,
        "SELECT avg((coalesce(suggested_label, label) = true_label)::INT) AS right FROM samples "
        "LEFT JOIN (FROM suggestions WHERE run_id = ? AND method = 'prediction_vote') USING (sample_id) WHERE split = 'train'",
        run,
    )["right"][0]
    assert (found["accuracy"] * found["n"]).sum() / found["n"].sum() == pytest.approx(votes)


def test_the_newest_windows_of_a_score_are_read() -> None:
    connection = duckdb.connect()
    connection.execute(
        """CREATE TABLE psi AS SELECT * FROM (VALUES ('old', 'window', 'cg', '{"offset": 0.1}'::JSON, 0, 0.5),
        ('new', 'window', 'cg', '{"offset": 0.05}', 0, 0.7), ('new', 'window', 'cg', '{"offset": 0.1}', 1, 0.8),
        ('new', 'random', NULL, '{}', 0, 0.1)) AS t(run_id, sampler, score, options, seed, accuracy);
        CREATE TABLE runs AS SELECT * FROM (VALUES ('old', 1), ('new', 2)) AS t(run_id, created_at)"""
    )
    found = paper.fetch_windows(connection)
    assert found[["run_id", "score", "offset", "seed"]].values.tolist() == [
        ["new", "cg", 0.05, 0],
        ["new", "cg", 0.1, 1],
    ]
    assert found["accuracy"].tolist() == pytest.approx([0.7, 0.8])


def test_velocity_is_read_from_beside_its_run_and_is_empty_where_there_is_none(small_workspace: Workspace) -> None:
    assert paper.fetch_velocity(small_workspace, "feedfeedfeed", "aum").empty
    small_workspace.start_run("feedfeedfeed", {})
    row = {"decile": 0, "epoch": 1, "until": 3, "velocity": 0.25}
    small_workspace.velocity_path("feedfeedfeed", "aum").write_text(json.dumps([row]))
    assert paper.fetch_velocity(small_workspace, "feedfeedfeed", "aum").to_dict("records") == [row]
