"""What the papers' figures show, against pandas on the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import torch

from engine.queries import paper, paper_groups, summaries
from engine.queries.connection import connect, connected
from engine.scores.dynamics import draw_threshold_samples, threshold_flags
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


def test_classes_are_listed_by_their_mean_with_the_spread_of_their_samples(opened: Opened) -> None:
    connection, run = opened
    rows = ask(connection, "FROM scores JOIN samples USING (sample_id) WHERE run_id = ? AND score = 'cg'", run)
    by = rows.groupby("label")["value"]
    found = paper_groups.fetch_class_scores(connection, run, "cg").set_index("label")
    assert found["mean"].is_monotonic_increasing and found["n"].sum() == len(rows)
    expected = pd.DataFrame({"n": by.size(), "mean": by.mean(), "spread": by.std(ddof=0)})
    pd.testing.assert_frame_equal(
        found[["n", "mean", "spread"]].sort_index(), expected, check_dtype=False, check_index_type=False, rtol=1e-4
    )
    labels = found.index[:2].tolist()
    bins = paper_groups.fetch_class_histograms(connection, run, "cg", labels, 5)
    assert bins.groupby("label")["n"].sum().to_dict() == found.loc[labels, "n"].to_dict()
    some = rows[rows["label"].isin(labels)]["value"]
    assert bins["left"].min() == pytest.approx(some.min()) and bins["right"].max() == pytest.approx(some.max())


def test_the_ends_of_a_class_are_its_highest_and_lowest_and_no_sample_is_both() -> None:
    connection = duckdb.connect()
    connection.execute(
        """CREATE TABLE scores AS SELECT 'r' AS run_id, 'cg' AS score, i AS sample_id, CAST(v AS FLOAT) AS value, i AS rank
        FROM (VALUES (0, 5.0), (1, 1.0), (2, 3.0), (3, 7.0), (4, 'nan'::FLOAT), (5, 2.0)) AS t(i, v);
        CREATE TABLE samples AS SELECT i AS sample_id, if(i = 5, 1, 0) AS label, 'train' AS split FROM range(6) AS r(i)"""
    )
    found = paper_groups.fetch_class_ends(connection, "r", "cg", (0, 1), 2)
    rows = found[["label", "highest", "place", "sample_id"]].values.tolist()
    # class 0: 7 (3), 5 (0) above, 1 (1), 3 (2) below; the one sample of class 1 is its highest
    assert rows == [[0, True, 0, 3], [0, True, 1, 0], [0, False, 0, 1], [0, False, 1, 2], [1, True, 0, 5]]


def test_p_given_of_right_and_wrong_labels_is_averaged_over_the_samples_of_each(opened: Opened) -> None:
    connection, run = opened
    found = paper_groups.fetch_group_curves(connection, run, True).set_index(["wrong", "epoch"])
    rows = ask(
        connection,
        "SELECT label <> true_label AS wrong, epoch, p_given FROM dynamics JOIN samples USING (sample_id) "
        "WHERE run_id = ? AND seed = 0 AND true_label IS NOT NULL",
        run,
    )
    by = rows.groupby(["wrong", "epoch"])["p_given"]
    whole = by.size()[by.size() <= paper_groups.GROUP_SAMPLES]  # of larger groups a part is drawn
    assert (found["n"] == np.minimum(by.size(), paper_groups.GROUP_SAMPLES)).all() and len(whole)
    np.testing.assert_allclose(found.loc[whole.index, "mean"], by.mean()[whole.index], rtol=1e-4)
    np.testing.assert_allclose(found.loc[whole.index, "spread"], by.std(ddof=0)[whole.index], rtol=1e-3)


def test_groups_without_truth_are_those_of_the_shortlist() -> None:
    connection = duckdb.connect()
    connection.execute(
        """CREATE TABLE samples AS SELECT i AS sample_id, 0 AS label, NULL::INTEGER AS true_label, 'train' AS split
            FROM range(4) AS r(i);
        CREATE TABLE shortlist AS SELECT 'r' AS run_id, i AS sample_id, i = 2 AS listed FROM range(4) AS r(i);
        CREATE TABLE runs AS SELECT 'r' AS run_id, NULL AS dynamics_run;
        CREATE TABLE epochs AS SELECT 'r' AS run_id;
        CREATE TABLE dynamics AS SELECT 'r' AS run_id, seed, epoch, i AS sample_id, 0.1 * i + epoch + 10 * seed AS p_given
            FROM range(4) AS r(i), range(2) AS s(seed), range(1, 3) AS e(epoch)"""
    )
    found = paper_groups.fetch_group_curves(connection, "r", False)
    assert found[["wrong", "epoch", "n"]].values.tolist() == [[False, 1, 3], [False, 2, 3], [True, 1, 1], [True, 2, 1]]
    assert found["mean"].tolist() == pytest.approx([1 + 0.4 / 3, 2 + 0.4 / 3, 1.2, 2.2])
    # of 0, 0.1 and 0.3: the mean square less the square of the mean
    assert found["spread"].tolist() == pytest.approx([np.std([0, 0.1, 0.3])] * 2 + [0, 0])


def test_found_are_the_highest_of_a_score_whose_label_is_wrong(opened: Opened) -> None:
    connection, run = opened
    found = paper_groups.fetch_found(connection, run, "aum", True, 3)
    assert (found["label"] != found["true_label"]).all() and len(found) == 3
    any_label = paper_groups.fetch_found(connection, run, "aum", False, 1)
    first = ask(connection, "SELECT arg_max(sample_id, rank) AS i FROM scores WHERE run_id = ? AND score = 'aum'", run)
    assert any_label["sample_id"].tolist() == [first["i"][0]]


def test_the_threshold_rule_at_any_percentile_is_that_of_the_engine() -> None:
    generator = torch.Generator().manual_seed(4)
    member = draw_threshold_samples(60, 5, 2, generator)
    aum = torch.randn(2, 60, generator=generator)
    truth = np.where(np.arange(60) % 3 == 0, 1, 0)
    connection = duckdb.connect()
    rows = pd.DataFrame(
        {
            "run_id": "r", "round": np.repeat([1, 2], 60), "sample_id": np.tile(np.arange(60), 2),
            "threshold_sample": member.numpy().reshape(-1), "aum": aum.numpy().reshape(-1),
        }
    )  # fmt: skip
    samples = pd.DataFrame({"sample_id": np.arange(60), "label": 0, "true_label": truth})
    for name, frame in (("threshold_rounds", rows), ("samples", samples)):
        connection.register(name, frame)
    for percentile in (50.0, 90.0, 99.0, 99.9):
        flagged, alpha = threshold_flags(aum, member, percentile)
        found = paper_groups.fetch_threshold_rule(connection, "r", percentile)
        np.testing.assert_allclose(found["threshold"], alpha.numpy(), rtol=1e-6)
        wrong = torch.from_numpy(truth == 1)
        assert found["flagged"].tolist() == [int(flagged.sum())] * 2
        assert found["recall"][0] == pytest.approx(float(flagged[wrong].float().mean()))
        assert found["precision"][0] == pytest.approx(float(wrong[flagged].float().mean()))
    singles = paper_groups.fetch_threshold_samples(connection, "r", 7)["aum"].tolist()
    every = sorted(aum[member].tolist())  # 20 of them: every third
    assert singles == pytest.approx(every[::3])
    assert paper_groups.fetch_threshold_rule(connection, "gone", 99.0).empty


def test_a_run_keeps_every_round_and_the_rule_follows_from_it(demo_workspace: Path) -> None:
    with connected(Workspace.open(demo_workspace), "digits-noisy") as connection:
        run = str(ask(connection, "SELECT DISTINCT run_id FROM threshold_rounds")["run_id"][0])
        found = paper_groups.fetch_threshold_rule(connection, run, 99.0)
        rule = summaries.fetch_rules(connection, run).set_index("rule").loc["aum_threshold"]
        sizes = ask(
            connection,
            "SELECT count(*) AS n, count(*) FILTER (threshold_sample) AS drawn FROM threshold_rounds GROUP BY round",
        )
    assert sorted(found["threshold"]) == pytest.approx(sorted(rule["thresholds"]), rel=1e-6)
    assert (int(found["flagged"][0]), len(found)) == (rule["flagged"], 2)
    assert (found["precision"][0], found["recall"][0]) == pytest.approx((rule["precision"], rule["recall"]))
    assert sizes["n"].tolist() == [rule["judged"]] * 2 and sizes["drawn"].tolist() == [rule["judged"] // 11] * 2
