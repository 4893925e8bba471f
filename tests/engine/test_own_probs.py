"""Held-out probabilities of a person's own model: read in any order they come in, scored, judged, and refused if they are
none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from engine.cli.commands import app
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import SourceError, SpecError
from engine.features.own_probs import read_probs
from engine.queries.connection import connected, fetch_sql
from engine.runs.compute import compute
from engine.runs.options import plan_run_from
from engine.store.atomic import file_hash
from engine.store.workspace import Workspace

CLASSES = ["ant", "bee", "cat"]
TRAIN, TEST = 40, 20


@dataclass(frozen=True)
class Given:
    """A dataset of 60 gray images in three classes, and probabilities (60, 3) of their classes, in the order of its ids."""

    workspace: Workspace
    probs: np.ndarray
    labels: np.ndarray
    sources: list[str]

    def read(self, path: Path) -> np.ndarray:
        return read_probs(self.workspace, "mine", str(path)).numpy()

    def refused(self, path: Path) -> str:
        with pytest.raises((SourceError, SpecError)) as caught:
            read_probs(self.workspace, "mine", str(path))
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
        return str(caught.value)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("probs"), np.random.default_rng(0)
    for i in range(TRAIN + TEST):
        folder = root / "photos" / ("train" if i < TRAIN else "test") / CLASSES[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
    workspace = Workspace.open(root / "w", create=True)
    ingest(workspace, IngestSpec(name="mine", source=str(root / "photos")))
    with connected(workspace, "mine") as connection:
        samples = fetch_sql(connection, "SELECT label, split, source FROM samples ORDER BY sample_id")
    assert (samples["split"] == "train").tolist() == [True] * TRAIN + [False] * TEST
    labels = samples["label"].to_numpy()
    logits = rng.normal(size=(TRAIN + TEST, 3)) + 3 * np.eye(3)[labels]
    logits[:3] += 9 * np.eye(3)[(labels[:3] + 1) % 3]  # three labels that the model does not believe
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Given(workspace, probs.astype(np.float32), labels, samples["source"].tolist())


# Reading ---------------------------------------------------------------------------------------------------------


def test_probabilities_in_the_order_of_the_samples(given: Given, tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", given.probs)
    np.save(tmp_path / "train.npy", given.probs[:TRAIN].astype(np.float64))
    np.savetxt(tmp_path / "bare.csv", given.probs, delimiter=",", fmt="%.9g")
    frame = pd.DataFrame(given.probs, columns=["p0", "p1", "p2"])
    frame.to_csv(tmp_path / "named.csv", index=False)
    frame.to_parquet(tmp_path / "named.parquet")
    pd.DataFrame({"probs": list(given.probs)}).to_parquet(tmp_path / "lists.parquet")
    for name in ("all.npy", "bare.csv", "named.csv", "named.parquet", "lists.parquet"):
        assert given.read(tmp_path / name) == pytest.approx(given.probs, abs=1e-6), name
    assert given.read(tmp_path / "train.npy") == pytest.approx(given.probs[:TRAIN], abs=1e-6)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("by", ["path", "sample_id", "names alone"])
def test_columns_are_found_by_class_and_rows_by_path_or_id(given: Given, tmp_path: Path, kind: str, by: str) -> None:
    frame = pd.DataFrame(given.probs, columns=CLASSES)
    frame["label"] = [CLASSES[label] for label in given.labels]  # a column of words is passed over
    frame["loss"] = 0.5  # and so is a number of no class
    if by == "path":
        frame["path"] = given.sources
    elif by == "sample_id":
        frame["sample_id"] = range(len(frame))
    if by != "names alone":
        frame = frame.sample(frac=1, random_state=0)
    frame = frame[["cat", *[name for name in frame if name not in CLASSES], "ant", "bee"]]
    path = tmp_path / f"rows.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    assert given.read(path) == pytest.approx(given.probs, abs=1e-6)
    if by != "names alone":  # the training samples alone, in any order
        mine = frame[[source in given.sources[:TRAIN] for source in frame["path"]]] if by == "path" else None
        mine = frame[frame["sample_id"] < TRAIN] if mine is None else mine
        mine.to_csv(path, index=False) if kind == "csv" else mine.to_parquet(path)
        assert given.read(path) == pytest.approx(given.probs[:TRAIN], abs=1e-6)


def test_certain_predictions_may_be_written_as_whole_numbers(given: Given, tmp_path: Path) -> None:
    sure = np.eye(3, dtype=np.int64)[given.labels]
    for name, frame in {
        "bare.csv": pd.DataFrame(sure),
        "named.csv": pd.DataFrame(sure, columns=CLASSES),
        "ids.csv": pd.DataFrame(sure, columns=CLASSES).assign(sample_id=range(len(sure))),
    }.items():
        frame.to_csv(tmp_path / name, index=False, header=name != "bare.csv")
        assert np.array_equal(given.read(tmp_path / name), sure), name
    pd.DataFrame(sure, columns=CLASSES).to_parquet(tmp_path / "sure.parquet")
    assert np.array_equal(given.read(tmp_path / "sure.parquet"), sure)
    np.save(tmp_path / "sure.npy", sure)
    assert np.array_equal(given.read(tmp_path / "sure.npy"), sure)


def test_a_line_of_names_may_be_of_numbers(given: Given, tmp_path: Path) -> None:
    # What pandas writes of an array without names; and of a table whose columns were sorted.
    pd.DataFrame(given.probs).to_csv(tmp_path / "pandas.csv", index=False)
    assert (tmp_path / "pandas.csv").read_text().startswith("0,1,2\n")
    assert given.read(tmp_path / "pandas.csv") == pytest.approx(given.probs, abs=1e-6)


def test_rounded_rows_are_scaled_to_add_up_to_one(given: Given, tmp_path: Path) -> None:
    rounded = given.probs.round(2)
    np.savetxt(tmp_path / "rounded.csv", rounded, delimiter=",", fmt="%.2f")
    found = given.read(tmp_path / "rounded.csv")
    assert found.sum(1) == pytest.approx(np.ones(TRAIN + TEST), abs=1e-6)
    assert found == pytest.approx(rounded / rounded.sum(1, keepdims=True), abs=1e-6)


def test_what_is_no_table_of_probabilities_is_named_in_one_line(given: Given, tmp_path: Path) -> None:
    def problem(rows: np.ndarray, name: str = "probs.npy") -> str:
        path = tmp_path / name
        np.save(path, rows) if name.endswith("npy") else pd.DataFrame(rows, columns=CLASSES).to_csv(path, index=False)
        return given.refused(path)

    def changed(value: float) -> np.ndarray:
        rows = given.probs.copy()
        rows[7, 1] = value
        return rows

    softmax = "allowed: 0 to 1, adding up to 1 (softmax output, not logits)"
    for text in (
        problem(np.log(given.probs)),
        problem(np.log(given.probs), "logits.csv"),
        problem(given.probs * 1.1),
        problem(changed(-0.2)),
        problem(changed(1.5)),
    ):
        assert softmax in text
    assert "the probabilities of sample 7 run from" in problem(changed(1.5))
    for value in (np.nan, np.inf):
        for name in ("probs.npy", "probs.csv"):
            assert "row 7: a number that is not finite, in 1 of 60 rows" in problem(changed(value), name)
    assert "has 2 columns of probabilities; dataset 'mine' has 3 classes" in problem(given.probs[:, :2])
    assert "has 4 columns of probabilities" in problem(np.hstack([given.probs, 0 * given.probs[:, :1]]))
    assert "has 59 rows; allowed: 60, the training samples and then the test samples, or 40" in problem(given.probs[1:])
    assert "shape (60,)" in problem(given.probs[:, 0])


def test_rows_that_are_missing_or_there_twice_are_named(given: Given, tmp_path: Path) -> None:
    path, frame = tmp_path / "rows.csv", pd.DataFrame(given.probs, columns=CLASSES).assign(path=given.sources)
    frame.drop(index=5).to_csv(path, index=False)
    assert f"has no row for 1 of 60 samples, such as {given.sources[5]}" in given.refused(path)
    frame.drop(index=TRAIN + 5).to_csv(path, index=False)
    assert f"has no row for 1 of 60 samples, such as {given.sources[TRAIN + 5]}" in given.refused(path)
    pd.concat([frame, frame[:1]]).to_csv(path, index=False)
    assert "is there a second time" in given.refused(path)
    ids = pd.DataFrame(given.probs, columns=CLASSES).assign(sample_id=range(len(frame)))
    ids[ids["sample_id"] != 5].to_csv(path, index=False)
    assert "has no row for 1 of 60 samples, such as sample 5" in given.refused(path)


@pytest.mark.parametrize("text", ["", "\n", "ant,bee,cat\n", "ant,bee\n0.5,0.5\n", 'a,b,c\n"0.2,0.3\n', "0.1,0.2,x\n"])
def test_torn_files_are_refused(given: Given, tmp_path: Path, text: str) -> None:
    path = tmp_path / "torn.csv"
    path.write_text(text)
    assert "torn.csv" in given.refused(path)


def test_other_files_are_refused(given: Given, tmp_path: Path) -> None:
    for name in ("probs.npz", "probs.txt", "probs"):
        assert "allowed: a file of probabilities, .npy, .csv, .parquet" in given.refused(tmp_path / name)
    assert "there is no" in given.refused(tmp_path / "nothing.npy")
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY torn")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    np.save(tmp_path / "objects.npy", np.array([[{}]], object), allow_pickle=True)
    given.refused(tmp_path / "torn.npy")
    given.refused(tmp_path / "torn.parquet")
    assert "pickled objects" in given.refused(tmp_path / "objects.npy")


# Runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(given: Given, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("run") / "probs.npy"
    np.save(path, given.probs)
    spec = plan_run_from(given.workspace, "mine", {"probs": str(path)})
    assert spec.training is None and spec.neighbors == 0 and spec.embedding == "none"
    return compute(given.workspace, spec, "cpu")[0]


def values_of(given: Given, run: str) -> dict[str, np.ndarray]:
    with connected(given.workspace, "mine") as connection:
        rows = fetch_sql(
            connection, f"SELECT score, value FROM scores WHERE run_id = '{run}' ORDER BY score, sample_id"
        )
    return {str(name): of.to_numpy() for name, of in rows.groupby("score")["value"]}


def test_the_scores_are_those_of_the_probabilities(given: Given, published: str) -> None:
    found = values_of(given, published)
    p, y, rows = given.probs[:TRAIN].astype(np.float64), given.labels[:TRAIN], np.arange(TRAIN)
    others = p.copy()
    others[rows, y] = 0
    ordered = np.sort(p, 1)
    by_hand = {
        "confident_learning": 1 - p[rows, y],
        "heldout_margin": p[rows, y] - others.max(1),
        "el2n": np.linalg.norm(p - np.eye(3)[y], axis=1),
        "entropy": -(p * np.log(p)).sum(1),
        "top2_gap": ordered[:, -1] - ordered[:, -2],
        "loss_last": -np.log(p[rows, y]),
        "margin_last": np.log(p[rows, y]) - np.log(others.max(1)),
    }
    for name, expected in by_hand.items():
        assert found[name] == pytest.approx(expected, abs=1e-5), name
    # What reads the recorded dynamics, neighbors or networks of its own is passed over.
    assert not {"aum", "lstm_detector", "knn_disagreement", "grand", "incv", "consistency"} & set(found)


def test_the_joint_is_the_rule_and_the_verdict_judges_both_parts(given: Given, published: str) -> None:
    with connected(given.workspace, "mine") as connection:
        (verdict,) = fetch_sql(connection, f"SELECT * FROM verdict WHERE run_id = '{published}'").to_dict("records")
        shortlist = fetch_sql(connection, f"SELECT * FROM shortlist WHERE run_id = '{published}' ORDER BY rank")
        joint = fetch_sql(
            connection,
            f"SELECT sample_id FROM flags WHERE rule = 'confident_joint' AND flagged AND run_id = '{published}'",
        )
        proposed = fetch_sql(
            connection, f"SELECT * FROM suggestions WHERE method = 'heldout_prediction' AND run_id = '{published}'"
        )
    assert verdict["accuracy"] == pytest.approx(float((given.probs.argmax(1) == given.labels).mean()))
    assert verdict["judged"] == len(shortlist) == TRAIN + TEST and verdict["listed"] == shortlist["listed"].sum()
    assert verdict["score"] == "held-out predictions" and verdict["reason"] and verdict["advice"]
    assert sorted(shortlist["sample_id"]) == list(range(TRAIN + TEST))
    assert set(shortlist["sample_id"][:3]) == set(joint["sample_id"]) & {0, 1, 2} == {0, 1, 2}
    wrong = (given.probs.argmax(1) != given.labels).nonzero()[0]
    assert sorted(proposed["sample_id"]) == wrong.tolist()
    assert proposed.set_index("sample_id")["suggested_label"].to_dict() == dict(
        zip(wrong.tolist(), given.probs.argmax(1)[wrong].tolist(), strict=True)
    )


def test_without_test_rows_the_training_part_is_judged(given: Given, tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", given.probs[:TRAIN])
    spec = plan_run_from(
        given.workspace, "mine", {"probs": str(tmp_path / "train.npy"), "scores": "confident_learning"}
    )
    run, _ = compute(given.workspace, spec, "cpu")
    with connected(given.workspace, "mine") as connection:
        ids = fetch_sql(connection, f"SELECT sample_id FROM shortlist WHERE run_id = '{run}' ORDER BY 1")["sample_id"]
    assert ids.tolist() == list(range(TRAIN))
    assert values_of(given, run).keys() == {"confident_learning"}


def test_the_same_content_is_the_same_run_wherever_it_lies(given: Given, published: str, tmp_path: Path) -> None:
    np.save(tmp_path / "moved.npy", given.probs)
    spec = plan_run_from(given.workspace, "mine", {"probs": str(tmp_path / "moved.npy")})
    assert compute(given.workspace, spec, "cpu") == (published, True)


def test_a_file_that_changes_between_plan_and_run_is_refused(given: Given, tmp_path: Path) -> None:
    path = tmp_path / "probs.npy"
    np.save(path, np.roll(given.probs, 1, axis=0))
    spec = plan_run_from(given.workspace, "mine", {"probs": str(path), "scores": "heldout_margin"})
    assert spec.probs_hash == file_hash(path)
    np.save(path, given.probs)
    with pytest.raises(SpecError, match="has changed since this run was planned; run it again"):
        compute(given.workspace, spec, "cpu")


@pytest.mark.parametrize("name", ["aum", "lstm_detector", "grand", "knn_disagreement", "consistency"])
def test_a_score_that_needs_a_network_is_refused_by_name(given: Given, tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "probs.npy", given.probs)
    options = {"probs": str(tmp_path / "probs.npy"), "scores": f"el2n,{name}"}
    with pytest.raises(
        SpecError, match=f"^{name} needs a network, for which --probs stands in; leave it out"
    ) as caught:
        plan_run_from(given.workspace, "mine", options)
    assert "\n" not in str(caught.value)


def test_neighbors_without_features_are_refused(given: Given, tmp_path: Path) -> None:
    np.save(tmp_path / "probs.npy", given.probs)
    with pytest.raises(SpecError, match="--neighbors and the map needs a network"):
        plan_run_from(given.workspace, "mine", {"probs": str(tmp_path / "probs.npy"), "scores": "el2n", "neighbors": 5})


def test_features_of_ones_own_beside_them_bring_the_neighbors(given: Given, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(TRAIN + TEST, 6)).astype(np.float32)
    np.save(tmp_path / "probs.npy", given.probs)
    np.save(tmp_path / "features.npy", rows)
    options = {"probs": str(tmp_path / "probs.npy"), "features": str(tmp_path / "features.npy"), "neighbors": 4}
    spec = plan_run_from(given.workspace, "mine", {**options, "scores": "confident_learning,knn_disagreement"})
    assert spec.training is None
    run, _ = compute(given.workspace, spec, "cpu")
    assert neighbors_of(given, run) == nearest(rows[:TRAIN], 4)
    found = values_of(given, run)
    assert found["confident_learning"] == pytest.approx(
        1 - given.probs[np.arange(TRAIN), given.labels[:TRAIN]], abs=1e-6
    )
    everything = plan_run_from(given.workspace, "mine", {**options, "embedding": "none"})
    assert {"knn_disagreement", "confident_learning", "outlier"} <= set(everything.scores)
    assert everything.training is None and "aum" not in everything.scores


def nearest(rows: np.ndarray, k: int) -> list[list[int]]:
    """The k rows of the largest cosine to each, the nearest first."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, 1)[:, :k].tolist()


def neighbors_of(given: Given, run: str) -> list[list[int]]:
    with connected(given.workspace, "mine") as connection:
        rows = fetch_sql(
            connection, f"SELECT sample_id, neighbor_id FROM neighbors WHERE run_id = '{run}' ORDER BY sample_id, rank"
        )
    return rows.groupby("sample_id")["neighbor_id"].apply(list).tolist()


# From the command line ------------------------------------------------------------------------------------------------


def test_the_command_publishes_and_refuses(given: Given, published: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(given.probs, columns=CLASSES)
    frame.to_csv(tmp_path / "probs.csv", index=False)
    words = ["run", "mine", "--probs", str(tmp_path / "probs.csv"), "--scores", "el2n"]
    words += ["--json", "--workspace", str(given.workspace.root)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    run = json.loads(done.stdout)["run_id"]
    assert values_of(given, run)["el2n"] == pytest.approx(values_of(given, published)["el2n"], abs=1e-5)
    (frame * 3).to_csv(tmp_path / "probs.csv", index=False)
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, SourceError) and "softmax output, not logits" in str(refused.exception)


def test_a_head_is_trained_on_a_file_of_features(given: Given, tmp_path: Path) -> None:
    rows = np.random.default_rng(2).normal(size=(TRAIN + TEST, 6)).astype(np.float32)
    rows[:, :3] += 4 * np.eye(3, dtype=np.float32)[given.labels]
    np.save(tmp_path / "features.npy", rows)
    options: dict[str, object] = {
        "features": str(tmp_path / "features.npy"),
        "model": "linear",
        "epochs": 12,
        "seeds": 1,
    }
    options |= {"lr": 0.05, "batch_size": 8, "scores": "aum,confident_learning,knn_disagreement", "neighbors": 4}
    spec = plan_run_from(given.workspace, "mine", options)
    assert spec.training is not None and spec.training.trained_on == spec.features_hash
    run, _ = compute(given.workspace, spec, "cpu")
    with connected(given.workspace, "mine") as connection:
        last = fetch_sql(
            connection, f"SELECT test_accuracy FROM epochs WHERE run_id = '{run}' ORDER BY epoch DESC LIMIT 1"
        )
        judged = fetch_sql(connection, f"SELECT sample_id FROM shortlist WHERE run_id = '{run}' ORDER BY 1")
    assert last["test_accuracy"][0] > 0.9  # the images are noise: it can have learned from the features alone
    assert neighbors_of(given, run) == nearest(rows[:TRAIN], 4)
    assert judged["sample_id"].tolist() == list(range(TRAIN + TEST))
