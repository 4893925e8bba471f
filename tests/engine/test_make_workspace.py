"""The generator of workspaces: what it makes opens, and is right, as if a network had been trained."""

import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from engine.data.loader import load_split
from engine.errors import SpecError
from engine.queries import clouds, listing, pairs, paper, pruned, samples, summaries
from engine.queries import connection as views
from engine.queries.samples import Filter
from engine.scores.registry import all_scores
from engine.store.schema import DECISIONS_COLUMNS, VIEWS
from engine.store.workspace import Workspace
from engine.training.columns import compute_columns

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "make_workspace.py"
N = 300


@pytest.fixture(scope="module")
def generator():
    """The script as a module, with the folder it stands in on the path as when it is run."""
    sys.path.insert(0, str(SCRIPT.parent))
    yield importlib.import_module("make_workspace")
    sys.path.remove(str(SCRIPT.parent))


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    """A workspace of 300 samples, made by the command."""
    out = tmp_path_factory.mktemp("generated") / "workspace"
    done = subprocess.run([sys.executable, str(SCRIPT), str(N), str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{N} samples" in done.stdout and "pictures" in done.stderr and "scores" in done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["workspace"]
    return out


@pytest.fixture(scope="module")
def connection(generated):
    with views.connected(Workspace.open(generated), "generated") as made:
        yield made


@pytest.fixture(scope="module")
def run(connection) -> str:
    return views.latest_run(connection, "scores")


def rows(connection, sql: str) -> pd.DataFrame:
    return views.fetch_sql(connection, sql)


@pytest.mark.parametrize("view", [*VIEWS, "decisions"])
def test_every_view_has_its_columns_and_rows(connection, view):
    expected = {**{name: found.columns for name, found in VIEWS.items()}, "decisions": DECISIONS_COLUMNS}[view]
    described = {row[0]: row[1] for row in connection.execute(f'DESCRIBE "{view}"').fetchall()}
    assert described == {column: kind for column, (kind, _) in expected.items()}
    count = connection.execute(f'SELECT count(*) FROM "{view}"').fetchall()[0][0]
    # Nothing was passed over, decided, proved or relabeled.
    assert (count == 0) == (view in ("skipped", "decisions", "proofs", "relabelings", "relabel_bins"))


def test_ranks_and_values_keep_to_the_catalog(connection, run):
    catalog = rows(connection, "SELECT * FROM score_catalog")
    assert len(catalog) == 20 and set(catalog["score"]) <= set(all_scores())
    table = rows(connection, "SELECT * FROM scores ORDER BY rank")
    assert len(table) == 20 * N and table["value"].notna().all()
    for found in catalog.itertuples():
        of_score = table[table["score"] == found.score]
        assert of_score["rank"].tolist() == list(range(N))
        assert of_score["value"].between(found.value_min, found.value_max).all(), found.score
        steps = np.diff(of_score["value"].to_numpy(np.float64))
        assert ((steps >= 0) if found.higher_means == "harder" else (steps <= 0)).all(), found.score
        assert of_score["value"].nunique() > 4, found.score
    correlation = pairs.fetch_spearman(connection, run)
    assert correlation.loc["aum", "confidence"] > 0.8 and correlation.loc["aum", "knn_disagreement"] > 0.2


def test_labels_are_wrong_for_8_percent_and_the_scores_find_them(connection, run):
    facts = summaries.fetch_dataset(connection)
    assert (facts["train"], facts["known"], facts["wrong"]) == (N, N, 24) and facts["noise_rate"] == 0.08
    assert summaries.fetch_transition_matrix(connection)["count"].sum() == N
    quality = summaries.fetch_catalog(connection, run).set_index("score")["roc_auc"]
    assert quality["aum"] > 0.9 and quality["lstm_detector"] > 0.85 and 0.3 < quality["near_duplicate"] < 0.7
    rules = summaries.fetch_rules(connection, run).set_index("rule")
    assert set(rules.index) == {"aum_threshold", "knn_vote", "lstm_detector", "bmm", "gmm"}
    assert (rules["judged"] == N).all() and (rules["flagged"] > 0).all() and (rules["recall"] > 0.5).all()
    suggested = rows(
        connection, "SELECT suggested_label = true_label AS good FROM suggestions JOIN samples USING (sample_id)"
    )
    assert suggested["good"].mean() > 0.4


def test_dynamics_and_logits_are_of_the_same_networks(connection, run):
    trajectory = samples.fetch_trajectory(connection, run, 7)
    assert len(trajectory) == 20 and trajectory.groupby("seed")["epoch"].max().tolist() == [10, 10]
    label = samples.fetch_sample(connection, 7)["label"]
    logits = samples.fetch_sample_logits(connection, run, 7).drop(columns=["seed", "epoch"]).to_numpy(np.float32)
    columns = compute_columns(torch.tensor(logits), torch.full((10,), label))
    for name, values in columns.items():
        np.testing.assert_allclose(trajectory[trajectory["seed"] == 0][name], values, atol=2e-5, err_msg=name)
    mean = rows(
        connection, "SELECT sample_id, avg(margin) AS value FROM dynamics GROUP BY sample_id ORDER BY sample_id"
    )
    np.testing.assert_allclose(mean["value"], summaries.fetch_score(connection, run, "aum")["value"], atol=1e-4)
    epochs = summaries.fetch_epochs(connection, run)
    assert len(epochs) == 20 and epochs.groupby("epoch")["train_loss"].mean().is_monotonic_decreasing
    per_seed = rows(connection, "SELECT score, count(*) AS n FROM seed_scores GROUP BY score").set_index("score")["n"]
    assert per_seed["aum"] == 2 * N and "nli" not in per_seed


def test_neighbors_and_map(connection, run):
    near = rows(connection, "SELECT * FROM neighbors ORDER BY sample_id, rank")
    assert len(near) == 15 * N and (near["neighbor_id"] != near["sample_id"]).all()
    similarity = near["similarity"].to_numpy().reshape(N, 15)
    assert (np.diff(similarity) <= 0).all() and similarity.max() <= 1 and similarity.min() >= -1
    assert not near.duplicated(["sample_id", "neighbor_id"]).any() and near["neighbor_id"].between(0, N - 1).all()
    assert len(samples.fetch_neighbors(connection, run, 5)) == 15
    places = clouds.fetch_points(connection, clouds.Plane(run), Filter(), clouds.Window(-1e6, 1e6, -1e6, 1e6))
    assert sorted(places["sample_id"]) == list(range(N)) and 0 < places["flagged"].sum() < N // 4
    truth = rows(connection, "SELECT true_label FROM samples ORDER BY sample_id")["true_label"].to_numpy()
    agree = truth[near["neighbor_id"]] == truth[near["sample_id"]]
    assert agree.mean() > 0.5


def test_pictures_can_be_told_apart_and_trained_on(generated, connection):
    thumbnails = rows(connection, "SELECT thumbnail, true_label FROM images JOIN samples USING (sample_id)")
    assert len(thumbnails) == 330 and thumbnails["thumbnail"].map(bytes).nunique() > 200
    assert Image.open(io.BytesIO(thumbnails["thumbnail"][0])).size == (32, 32)
    train = load_split(Workspace.open(generated), "generated", "train")
    assert train.inputs.shape == (N, 3, 32, 32) and len(np.unique(train.inputs.numpy(), axis=0)) == N
    test = load_split(Workspace.open(generated), "generated", "test")
    assert len(test) == 30 and (test.labels == test.true_labels).all()


def test_the_queries_of_the_pages_find_something(connection, run):
    ids = listing.fetch_ids(connection, run, Filter(rule="aum_threshold", truth="wrong"), "aum")
    assert 12 < len(ids) <= 24
    cards = samples.fetch_cards(connection, run, ids[:8], "aum")
    assert cards["sample_id"].tolist() == ids[:8].tolist() and cards["value"].is_monotonic_increasing
    assert cards["thumbnail"].notna().all()
    assert listing.fetch_facets(connection, run, Filter(agreement="disagrees"))["n"].sum() > 0
    assert len(listing.fetch_ids(connection, run, Filter(score="el2n", low=90))) == N // 10
    assert len(samples.fetch_sample_flags(connection, run, 3)) == 5
    assert samples.fetch_sample_scores(connection, run, 3)["percentile"].between(0, 100).all()
    assert summaries.fetch_histogram(connection, run, "aum")[["clean", "mislabeled"]].sum().tolist() == [276, 24]
    assert summaries.fetch_detection_curve(connection, run, "aum")["found"].iloc[-1] == 1
    assert len(paper.fetch_decile_curves(connection, run, "aum")) == 100
    for found in (
        paper.fetch_logit_groups(connection, run),
        paper.fetch_margin_pair(connection, run),
        paper.fetch_relabeling(connection, run),
        pruned.fetch_epoch_quality(connection, run, "margin"),
    ):
        assert len(found)


def test_the_psi_run_has_curves_that_differ(connection):
    (psi,) = rows(connection, "SELECT run_id FROM runs WHERE kind = 'psi'")["run_id"]
    points = pruned.fetch_psi(connection, [psi])
    assert len(points) == 7 * 20 * 3 and points["accuracy"].between(0.05, 1).all()
    means = points.groupby(["order", "pruned"])["accuracy"].mean()
    assert means["oracle", 150] > means["random", 150] > means["aum", 150]
    assert points[points["pruned"] == 0].groupby("seed")["accuracy"].nunique().eq(1).all()
    parts = rows(connection, 'SELECT DISTINCT "order", score, reversed, sampler FROM psi').set_index("order")
    assert parts.loc["el2n*"].tolist() == ["el2n", True, "descending"] and parts.loc["ccs(aum)", "sampler"] == "ccs"


def test_the_commands_work_on_it(generated, tmp_path):
    def winnow(*words: str) -> str:
        command = [sys.executable, "-m", "engine.cli", *words, "--workspace", str(generated)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = winnow("runs")
    assert listed.count("generated") >= 2 and listed.count("100 %") == 2
    assert "300" in winnow("query", "SELECT count(*) AS n FROM samples WHERE split = 'train'")
    to = tmp_path / "suspects.csv"
    winnow("export", "generated", "--where", "label <> true_label", "--to", str(to))
    assert len(pd.read_csv(to)) == 24


def test_the_same_arguments_give_the_same_tables(generated, generator, tmp_path):
    again = tmp_path / "again"
    generator.make_workspace(generator.Options(N), again, lambda *_: None)
    first, second = _tables(generated), _tables(again)
    assert first.keys() == second.keys() and len(first) == len(VIEWS)
    assert [name for name in first if not first[name].equals(second[name])] == []
    drawn = [generator.draw_population(generator.Options(N, seed=seed)) for seed in (0, 1)]
    assert (drawn[0].labels != drawn[1].labels).any() and (drawn[0].features != drawn[1].features).any()


def _tables(root: Path) -> dict[str, pd.DataFrame]:
    """Every view but for times."""
    timed = {"runs": ["created_at", "seconds"], "dataset": ["created_at"], "score_costs": ["seconds"]}
    with views.connected(Workspace.open(root), "generated") as connection:
        tables = {name: rows(connection, f'SELECT * FROM "{name}" ORDER BY ALL') for name in VIEWS}
    return {name: table.drop(columns=timed.get(name, [])) for name, table in tables.items()}


def test_many_classes_with_long_names(generator, tmp_path):
    out = tmp_path / "many"
    generator.make_workspace(
        generator.Options(400, classes=40, long_names=True, seeds=1, epochs=3), out, lambda *_: None
    )
    with views.connected(Workspace.open(out), "generated") as connection:
        names = rows(connection, "SELECT class_name FROM classes")["class_name"]
        assert names.nunique() == 40 and names.str.len().between(120, 180).all()
        predicted = rows(connection, "SELECT DISTINCT predicted FROM dynamics")["predicted"]
        assert set(predicted) <= set(range(40)) and len(predicted) > 35
        wrong = rows(connection, "SELECT count(*) AS n FROM samples WHERE label <> true_label AND split = 'train'")["n"]
        assert wrong[0] == 32


def test_what_cannot_be_made_leaves_nothing(generator, generated, tmp_path, monkeypatch):
    before = sorted(path.name for path in generated.rglob("*"))
    with pytest.raises(SpecError, match="exists; choose a path that does not"):
        generator.make_workspace(generator.Options(N), generated, lambda *_: None)
    assert sorted(path.name for path in generated.rglob("*")) == before
    with pytest.raises(SpecError, match="N is 300; allowed: 10000 to"):
        generator.Options(N, classes=1000)
    with pytest.raises(SpecError, match="there is no folder"):
        generator.make_workspace(generator.Options(N), tmp_path / "no" / "out", lambda *_: None)

    def stop(stage: str, fraction: float, seconds_left: float | None) -> None:
        if fraction > 0:  # the dataset is begun; later stages may be too quick to report
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator.make_workspace(generator.Options(N), tmp_path / "stopped", stop)
    assert list(tmp_path.iterdir()) == []
