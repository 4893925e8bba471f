"""The fetch_* queries about runs, against numpy, pandas, scipy and scikit-learn on the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from engine.errors import WinnowError
from engine.queries import clouds, pairs, pruned, summaries
from engine.queries.connection import connect, connected, fetch_sql, source_run
from engine.queries.samples import Filter
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.scores.evaluation import evaluate_score, find_shares
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace


@pytest.fixture(scope="module")
def opened(noisy: tuple[Path, str]) -> tuple[duckdb.DuckDBPyConnection, str, str]:
    """A connection to a noisy dataset, its run of all scores and its psi run with the oracle."""
    connection = connect(Workspace.open(noisy[0]), noisy[1])
    ((psi,),) = connection.execute("""SELECT DISTINCT run_id FROM psi WHERE "order" = 'oracle'""").fetchall()
    return (
        connection,
        str(
            connection.execute("SELECT run_id FROM runs WHERE run_id IN (SELECT run_id FROM embedding)").fetchall()[0][
                0
            ]
        ),
        str(psi),
    )


@pytest.fixture(scope="module")
def aum(opened: tuple[duckdb.DuckDBPyConnection, str, str]) -> pd.DataFrame:
    connection, run, _ = opened
    sql = "SELECT * FROM scores JOIN samples USING (sample_id) WHERE run_id = ? AND score = 'aum'"
    return connection.execute(sql, [run]).df()


def test_the_dataset_counts_its_samples(opened: tuple[duckdb.DuckDBPyConnection, str, str]) -> None:
    facts = summaries.fetch_dataset(opened[0])
    assert facts["train"] + facts["test"] == {"digits-noisy": 1797, "noisy": 187}[facts["name"]]
    assert facts["known"] == facts["train"]
    assert facts["wrong"] == round(0.2 * facts["train"])
    assert facts["noise_rate"] == pytest.approx(facts["wrong"] / facts["train"])
    assert (facts["parent"], facts["noise"], facts["skipped"]) == ("digits", "symmetric:0.2", 0)
    assert list(facts["input_shape"]) == [1, 8, 8]
    classes = summaries.fetch_classes(opened[0])
    assert (classes["train"].sum(), classes["test"].sum()) == (facts["train"], facts["test"])
    assert classes["wrong"].sum() == facts["wrong"]


def test_the_transition_matrix_sums_to_one_per_true_class(opened: tuple[duckdb.DuckDBPyConnection, str, str]) -> None:
    matrix = summaries.fetch_transition_matrix(opened[0])
    assert np.allclose(matrix.groupby("true_label")["share"].sum(), 1)
    off = matrix["true_label"] != matrix["label"]
    assert matrix.loc[off, "count"].sum() == summaries.fetch_dataset(opened[0])["wrong"]


def test_the_histogram_is_numpys(opened: tuple[duckdb.DuckDBPyConnection, str, str], aum: pd.DataFrame) -> None:
    connection, run, _ = opened
    bins = summaries.fetch_histogram(connection, run, "aum", 40)
    values = aum["value"].to_numpy(np.float64)
    wrong = (aum["label"] != aum["true_label"]).to_numpy()
    edges = np.append(bins["left"], bins["right"].iloc[-1])
    assert np.allclose(edges, np.linspace(values.min(), values.max(), 41))
    for column, some in (("clean", values[~wrong]), ("mislabeled", values[wrong])):
        assert bins[column].tolist() == np.histogram(some, 40, (values.min(), values.max()))[0].tolist()
    assert bins["unknown"].sum() == 0


def test_a_histogram_of_a_score_that_is_not_there_is_empty(opened: tuple[duckdb.DuckDBPyConnection, str, str]) -> None:
    assert summaries.fetch_histogram(opened[0], opened[1], "no_such").empty


def test_the_detection_curve_counts_the_mislabeled_among_the_hardest(
    opened: tuple[duckdb.DuckDBPyConnection, str, str], aum: pd.DataFrame
) -> None:
    connection, run, _ = opened
    curve = summaries.fetch_detection_curve(connection, run, "aum")
    wrong = aum.sort_values("rank", ascending=False)["label"] != aum.sort_values("rank", ascending=False)["true_label"]
    n = len(wrong)
    assert curve["looked_at"].tolist() == [i / 100 for i in range(101)]
    for i in (0, 7, 20, 55, 100):
        expected = wrong.iloc[: int(np.floor(n * i / 100 + 0.5))].sum() / wrong.sum()
        assert curve["found"][i] == pytest.approx(expected)
    metrics = summaries.fetch_evaluation(connection).set_index(["run_id", "kind", "name"])
    assert metrics.loc[(run, "score", "aum"), "recall_at_20"] == pytest.approx(curve["found"][20], abs=2 / wrong.sum())


def test_the_detection_curve_is_that_of_the_values_with_their_ties(
    opened: tuple[duckdb.DuckDBPyConnection, str, str],
) -> None:
    connection, run, _ = opened
    rows = connection.execute(
        "SELECT score, value, label <> true_label AS wrong, higher_means FROM scores JOIN samples USING (sample_id) "
        "JOIN score_catalog USING (score) WHERE run_id = ? AND score IN ('forgetting', 'knn_disagreement', 'aum')",
        [run],
    ).df()
    assert rows.groupby("score")["value"].nunique().min() < 30  # of hundreds of samples
    for score, some in rows.groupby("score"):
        suspicion = some["value"].to_numpy() * (1 if some["higher_means"].iloc[0] == "harder" else -1)
        curve = summaries.fetch_detection_curve(connection, run, str(score))
        expected = find_shares(suspicion, some["wrong"].to_numpy(), curve["looked_at"].to_numpy())
        assert curve["found"].to_numpy() == pytest.approx(expected)


def test_published_metrics_are_those_of_the_values(demo_workspace: Path) -> None:
    with connected(Workspace.open(demo_workspace), "digits-noisy") as connection:
        metrics = summaries.fetch_evaluation(connection)
        rows = connection.execute(
            "SELECT run_id, score, value, label <> true_label AS wrong, higher_means FROM scores "
            "JOIN samples USING (sample_id) JOIN score_catalog USING (score) WHERE split = 'train'"
        ).df()
    metrics = metrics[metrics["kind"] == "score"].set_index(["run_id", "name"])
    assert len(metrics) > 20
    for (run, score), some in rows.groupby(["run_id", "score"]):
        expected = evaluate_score(some["value"].to_numpy(), some["higher_means"].iloc[0], some["wrong"].to_numpy())
        found = metrics.loc[(run, score)]
        assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_rule_says_why_it_is_left_out(opened: tuple[duckdb.DuckDBPyConnection, str, str]) -> None:
    connection, run, _ = opened
    rules = summaries.fetch_rules(connection, run)
    stored = connection.execute("SELECT rule, flagged, why_unused FROM rules WHERE run_id = ?", [run]).fetchall()
    notes = json.loads(summaries.fetch_runs(connection).set_index("run_id").loc[run, "notes"])
    evidence = summaries.fetch_catalog(connection, run).set_index("score")["evidence"]
    if not stored:  # of version 0.1
        assert (rules["why_unused"] == "").all()
    for row in rules.itertuples():
        if stored:
            assert (row.rule, row.flagged, row.why_unused) in stored
            said = f"the rule {row.rule} is left out of the vote: {row.why_unused}" in notes
            assert said == (bool(row.why_unused) and evidence[row.score] == "label")  # of others it goes without saying
            assert row.why_unused if not 0 < row.flagged <= row.judged / 3 else True


def test_what_a_score_cost_is_told_of_its_newest_run(opened: tuple[duckdb.DuckDBPyConnection, str, str]) -> None:
    connection, run, _ = opened
    costs = summaries.fetch_costs(connection).set_index("score")
    assert costs.loc["cg", "run_id"] == run and (costs["seconds"] >= 0).all()
    newest = summaries.fetch_runs(connection)["run_id"].tolist()  # newest first
    for score, of in costs["run_id"].items():
        (have,) = zip(
            *connection.execute("SELECT run_id FROM score_costs WHERE score = ?", [score]).fetchall(), strict=True
        )
        assert of == min(have, key=newest.index)
    # A score that reads the neighbors costs at least what finding them cost the others.
    assert costs.loc["nli", "seconds"] > 0 and costs.loc["cg", "cost"] == "inputs (heavy)"


def test_the_catalog_knows_range_and_quality(
    opened: tuple[duckdb.DuckDBPyConnection, str, str], aum: pd.DataFrame
) -> None:
    row = summaries.fetch_catalog(opened[0], opened[1]).set_index("score").loc["aum"]
    range_ = summaries.fetch_ranges(opened[0], opened[1]).set_index("score").loc["aum"]
    assert (range_["n"], row["higher_means"], row["version"]) == (len(aum), "easier", 1)
    assert (range_["low"], range_["high"]) == (pytest.approx(aum["value"].min()), pytest.approx(aum["value"].max()))
    assert row["roc_auc"] == pytest.approx(roc_auc_score(aum["label"] != aum["true_label"], -aum["value"]), abs=1e-3)


def test_rules_are_judged_against_the_truth(opened: tuple[duckdb.DuckDBPyConnection, str, str]) -> None:
    connection, run, _ = opened
    rule = summaries.fetch_rules(connection, run).iloc[0]
    flags = connection.execute(
        "SELECT * FROM flags JOIN samples USING (sample_id) WHERE run_id = ? AND rule = 'aum_threshold'", [run]
    ).df()
    wrong = flags["label"] != flags["true_label"]
    assert (rule["rule"], rule["flagged"], rule["judged"]) == ("aum_threshold", flags["flagged"].sum(), len(flags))
    assert rule["precision"] == pytest.approx(precision_score(wrong, flags["flagged"]))
    assert rule["recall"] == pytest.approx(recall_score(wrong, flags["flagged"]))
    assert sorted(rule["thresholds"]) == sorted(flags["threshold"].dropna().unique())


def test_spearman_is_scipys_with_both_turned_the_same_way(opened: tuple[duckdb.DuckDBPyConnection, str, str]) -> None:
    connection, run, _ = opened
    matrix = pairs.fetch_spearman(connection, run)
    wide = {s: summaries.fetch_score(connection, run, s)["value"] for s in ("aum", "el2n", "forgetting")}
    for a, b, sign in (("aum", "el2n", -1), ("el2n", "forgetting", 1), ("aum", "forgetting", -1)):
        assert matrix[a][b] == pytest.approx(sign * spearmanr(wide[a], wide[b]).statistic, abs=1e-9)
    assert matrix["aum"]["aum"] == pytest.approx(1)


def test_the_map_has_every_training_sample(
    opened: tuple[duckdb.DuckDBPyConnection, str, str], aum: pd.DataFrame
) -> None:
    whole = clouds.Window(-1e6, 1e6, -1e6, 1e6)
    points = clouds.fetch_points(opened[0], clouds.Plane(opened[1]), Filter(), whole)
    assert sorted(points["sample_id"]) == sorted(aum["sample_id"])
    types = points.dtypes.astype(str).to_dict()
    assert types == {"sample_id": "int32", "x": "float32", "y": "float32", "c": "float64", "flagged": "bool"}


def test_the_journal_of_a_psi_run_holds_the_points_it_publishes(
    noisy: tuple[Path, str], opened: tuple[duckdb.DuckDBPyConnection, str, str]
) -> None:
    connection, _, psi = opened
    by = ["order", "pruned", "seed"]
    published = pruned.fetch_psi(connection, [psi]).sort_values(by).reset_index(drop=True)
    journalled = pruned.fetch_psi_journal(Workspace.open(noisy[0]), psi).sort_values(by).reset_index(drop=True)
    assert len(published) == {"digits-noisy": 4 * 4 * 2, "noisy": 5 * 3 * 1}[noisy[1]]  # orders, points, seeds
    columns = [*by, "kept_fraction", "accuracy"]
    pd.testing.assert_frame_equal(published[columns], journalled[columns], check_dtype=False)


def test_a_run_that_trained_nothing_reads_the_dynamics_of_another(
    small_workspace: Workspace, small_training: Callable[..., TrainingSpec]
) -> None:
    training = small_training()
    first, _ = compute(small_workspace, plan_run(small_workspace, "small", ["aum", "el2n"], training), "cpu")
    second, _ = compute(small_workspace, plan_run(small_workspace, "small", ["confidence"], training), "cpu")
    assert first != second
    with connected(small_workspace, "small") as connection:
        assert source_run(connection, "epochs", second) == first
        assert source_run(connection, "scores", second) == second
        assert len(summaries.fetch_epochs(connection, second)) == training.epochs * training.seeds
        pd.testing.assert_frame_equal(
            summaries.fetch_epochs(connection, first), summaries.fetch_epochs(connection, second)
        )


def test_a_mistake_in_the_sql_is_one_line(opened: tuple[duckdb.DuckDBPyConnection, str, str]) -> None:
    with pytest.raises(WinnowError, match="no_such_column") as error:
        fetch_sql(opened[0], "SELECT no_such_column FROM samples")
    assert "\n" not in str(error.value)
