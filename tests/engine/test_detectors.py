"""Detectors as files: trained on one run, kept, listed, applied to another, explained."""

import numpy as np
import pytest

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import NotFoundError, ScoreInputError, SpecError, StorageError
from engine.queries.connection import connected, fetch_sql
from engine.queries.summaries import fetch_evaluation
from engine.runs.compute import compute
from engine.runs.detectors import (
    apply_to_run,
    explain_sample,
    list_detectors,
    load_detector,
    read_sequences,
    train_on_run,
)
from engine.runs.planning import plan_run
from engine.scores.evaluation import evaluate_detection
from engine.scores.lstm import SHIPPED
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace

TRAINING = TrainingSpec(epochs=5, seeds=2, batch_size=32, lr=1e-3)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """300 digits with 30 % noise and a run of 2 seeds and 5 epochs."""
    workspace = Workspace.open(tmp_path_factory.mktemp("detectors") / "workspace", create=True)
    ingest(workspace, IngestSpec(name="noisy", source="digits", limit=300, noise="symmetric:0.3"))
    plan = plan_run(
        workspace, "noisy", ["aum", "lstm_detector"], TRAINING, threshold_rounds=0, neighbors=0, embedding="none"
    )
    return workspace, compute(workspace, plan, "cpu")[0]


def test_the_sequences_of_a_run_are_its_dynamics(noisy):
    workspace, run_id = noisy
    sequences, ids = read_sequences(workspace, "noisy", run_id)
    with connected(workspace, "noisy") as connection:
        rows = fetch_sql(connection, "SELECT seed, epoch, sample_id, p_given FROM dynamics WHERE sample_id IN (3, 200)")
    assert sequences.shape == (2, 5, len(ids)) and len(rows) == 2 * 2 * 5
    for row in rows.itertuples():
        assert float(sequences[row.seed, row.epoch - 1, row.sample_id]) == pytest.approx(row.p_given)


def test_a_detector_is_trained_kept_listed_and_applied(noisy):
    workspace, run_id = noisy
    record = train_on_run(workspace, "noisy", run_id, "mine", epochs=3, lr=0.01)
    assert (record["epochs"], record["run_id"], record["dataset"]) == (5, run_id, "noisy")
    assert [r["name"] for r in list_detectors(workspace)] == [SHIPPED, "mine"]
    assert list_detectors(workspace)[1] == record
    found = apply_to_run(workspace, "noisy", run_id, "mine")
    assert found["metrics"]["roc_auc"] > 0.8
    assert found["values"].shape == found["sample_ids"].shape
    tuned = train_on_run(workspace, "noisy", run_id, "tuned", start=SHIPPED, epochs=1)
    assert tuned["start"] == SHIPPED and tuned["epochs"] == 20
    with pytest.raises(SpecError, match="there is a detector 'mine' already"):
        train_on_run(workspace, "noisy", run_id, "mine")


def test_applying_the_shipped_detector_is_the_score(noisy):
    workspace, run_id = noisy
    found = apply_to_run(workspace, "noisy", run_id, SHIPPED)
    with connected(workspace, "noisy") as connection:
        rows = fetch_sql(connection, "SELECT value FROM scores WHERE score = 'lstm_detector' ORDER BY sample_id")
        metrics = fetch_evaluation(connection)
    assert np.allclose(found["values"], rows["value"], atol=1e-6)
    metrics = metrics[metrics["kind"] == "score"]
    row = metrics[metrics["name"] == "lstm_detector"].iloc[0]
    assert row["roc_auc"] == pytest.approx(found["metrics"]["roc_auc"], abs=1e-3)  # ranks break ties
    assert metrics["average_precision"].is_monotonic_decreasing


def test_the_shipped_detector_says_where_it_is_from(noisy):
    _, record = load_detector(noisy[0], SHIPPED)
    assert (
        "digits" in record["dataset"]
        and "textures" in record["dataset"]
        and record["noise"].startswith("symmetric:")
        and record["metrics"]
    )


def test_an_explanation_has_a_number_for_every_epoch(noisy):
    workspace, run_id = noisy
    weights = explain_sample(workspace, "noisy", run_id, 7)
    assert weights.shape == (5,) and np.isfinite(weights).all()
    with pytest.raises(NotFoundError, match="has no training sample 5000"):
        explain_sample(workspace, "noisy", run_id, 5000)


def test_messages(noisy):
    workspace, run_id = noisy
    with pytest.raises(NotFoundError, match=r"unknown detector 'digits\+texture'; did you mean 'digits\+textures'"):
        apply_to_run(workspace, "noisy", run_id, "digits+texture")
    with pytest.raises(SpecError, match="detector name '../x'; allowed"):
        train_on_run(workspace, "noisy", run_id, "../x")
    with pytest.raises(SpecError, match=r"detector name 'digits\+textures'; allowed"):
        train_on_run(workspace, "noisy", run_id, SHIPPED)
    for name, value, allowed in (
        ("epochs", 0, "1 to 10000"),
        ("lr", float("nan"), "1e-08 to 100"),
        ("seed", -1, "0 to"),
    ):
        with pytest.raises(SpecError, match=f"--{name} is {value}; allowed: {allowed}"):
            train_on_run(workspace, "noisy", run_id, "wrong", **{name: value})
    with pytest.raises(NotFoundError, match="run nothing of 'noisy' has no dynamics"):
        apply_to_run(workspace, "noisy", "nothing", SHIPPED)
    (workspace.root / "detectors").mkdir(exist_ok=True)
    (workspace.root / "detectors" / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(StorageError, match="torn.safetensors is damaged"):
        load_detector(workspace, "torn")
    (workspace.root / "detectors" / "torn.safetensors").unlink()


def test_a_clean_dataset_teaches_nothing(tmp_path):
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec(name="clean", source="digits", limit=100))
    plan = plan_run(workspace, "clean", ["aum"], TRAINING, threshold_rounds=0, neighbors=0, embedding="none")
    run_id, _ = compute(workspace, plan, "cpu")
    with pytest.raises((ScoreInputError, NotFoundError), match="inject noise"):
        train_on_run(workspace, "clean", run_id, "none")


def test_detection_metrics_of_constant_values():
    assert evaluate_detection(np.zeros(4), np.array([True, False, False, False]))["average_precision"] == 0.25
