"""Runs: found when asked twice, resumed when killed, and asking only for what they need."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import BusyError, Cancelled, ScoreInputError, SpecError
from engine.queries.connection import connected
from engine.runs import pipeline
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import run_id, spec_from_json, spec_to_json
from engine.store.jobs import cancel, fetch_job
from engine.store.journal import read_journal
from engine.store.workspace import exclusive


def ask(workspace, sql, dataset="small", runs=None):
    with connected(workspace, dataset, runs) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def plan(small_workspace, small_training):
    return plan_run(small_workspace, "small", ["aum", "el2n@2", "forgetting"], small_training())


def test_a_run_writes_every_table_of_what_it_was_asked(demo_workspace):
    from engine.store.workspace import Workspace

    workspace = Workspace.open(demo_workspace)
    [(run,)] = ask(workspace, "SELECT run_id FROM runs WHERE kind = 'run'", "digits-noisy")
    counts = dict(
        ask(
            workspace,
            "SELECT 'dynamics', count(*) FROM dynamics UNION ALL SELECT 'logits', count(*) FROM logits UNION ALL "
            "SELECT 'neighbors', count(*) FROM neighbors UNION ALL SELECT 'embedding', count(*) FROM embedding UNION ALL "
            "SELECT 'flags', count(*) FROM flags UNION ALL SELECT 'epochs', count(*) FROM epochs",
            "digits-noisy",
        )
    )
    n = ask(workspace, "SELECT count(*) FROM samples WHERE split = 'train'", "digits-noisy")[0][0]
    rules = ask(workspace, "SELECT DISTINCT rule FROM flags ORDER BY 1", "digits-noisy")
    labels = ("aum_threshold", "bmm", "cg_partial", "confident_joint", "gmm", "knn_vote", "lstm_detector")
    pictures = ("blurred", "bright", "dark", "low_information", "odd_shape", "odd_size")
    assert rules == [(r,) for r in sorted((*labels, *pictures))]
    assert counts == {
        "dynamics": n * 2 * 6,
        "logits": n * 6,
        "neighbors": n * 15,
        "embedding": n,
        "flags": n * len(rules),
        "epochs": 2 * 6,
    }
    files = {p.name for p in workspace.published_dir(run).iterdir()}
    checkpoints = {f"weights-epoch{epoch}.safetensors" for epoch in (1, 2, 4, 5)}  # TracIn reads them
    assert files == {"results.duckdb", "weights.safetensors", "features.safetensors", "manifest.json"} | checkpoints
    assert load_file(workspace.published_dir(run) / "features.safetensors")["features"].shape == (n, 512)


def test_scores_follow_from_the_recorded_dynamics(small_workspace, plan):
    compute(small_workspace, plan, "cpu")
    rows = ask(
        small_workspace,
        "SELECT a.value, m.margin FROM (SELECT * FROM scores WHERE score = 'aum') a JOIN "
        "(SELECT sample_id, avg(margin) AS margin FROM dynamics GROUP BY 1) m USING (sample_id)",
    )
    assert np.allclose(*np.array(rows).T, atol=1e-5)
    rows = ask(
        small_workspace,
        "SELECT s.value, d.el2n FROM seed_scores s JOIN dynamics d USING (seed, sample_id) WHERE s.score = 'el2n@2' AND epoch = 2",
    )
    assert len(rows) == 2 * 200 and np.allclose(*np.array(rows).T, atol=1e-6)
    ranks = [r for (r,) in ask(small_workspace, "SELECT rank FROM scores WHERE score = 'forgetting' ORDER BY rank")]
    assert ranks == list(range(200))


def test_metrics_agree_with_an_independent_computation(small_workspace, plan):
    compute(small_workspace, plan, "cpu")
    rows = ask(
        small_workspace,
        "SELECT value, label <> true_label FROM scores JOIN samples USING (sample_id) WHERE score = 'aum' ORDER BY sample_id",
    )
    values, wrong = np.array(rows).T
    [(auc,)] = ask(small_workspace, "SELECT value FROM metrics WHERE score = 'aum' AND metric = 'roc_auc'")
    assert auc == pytest.approx(roc_auc_score(wrong, -values)) and auc > 0.8
    flags = np.array(
        ask(small_workspace, "SELECT flagged, label <> true_label FROM flags JOIN samples USING (sample_id)"),
        dtype=bool,
    )
    metrics = dict(ask(small_workspace, "SELECT metric, value FROM metrics WHERE score = 'aum_threshold'"))
    assert metrics["precision"] == pytest.approx((flags[:, 0] & flags[:, 1]).sum() / flags[:, 0].sum())
    assert metrics["recall"] == pytest.approx((flags[:, 0] & flags[:, 1]).sum() / flags[:, 1].sum())


def test_a_flag_says_what_was_held_against_what(small_workspace, plan):
    compute(small_workspace, plan, "cpu")
    rows = ask(small_workspace, "SELECT flagged, value <= threshold, threshold FROM flags")
    assert len(rows) == 200 and all(flagged == below for flagged, below, _ in rows)
    assert len({threshold for *_, threshold in rows}) == 2  # one alpha per round


def test_the_same_spec_is_found_and_another_reads_its_training(small_workspace, small_training):
    plan = plan_run(small_workspace, "small", ["aum"], small_training())
    first, existed = compute(small_workspace, plan, "cpu")
    assert (first, existed) == (run_id(plan), False)
    assert compute(small_workspace, plan, "cpu") == (first, True)
    more, _ = compute(small_workspace, plan_run(small_workspace, "small", ["aum", "entropy"], small_training()), "cpu")
    assert more != first
    assert ask(small_workspace, f"SELECT dynamics_run FROM runs WHERE run_id = '{more}'") == [(first,)]
    assert not any(e.get("stage") == "training" for e in read_journal(small_workspace.run_dir(more)))
    values = ask(small_workspace, "SELECT run_id, sample_id, value FROM scores WHERE score = 'aum' ORDER BY 2, 1")
    by_run = {run: [v for r, _, v in values if r == run] for run in (first, more)}
    assert by_run[first] == by_run[more]
    flags = ask(small_workspace, "SELECT run_id, count(*) FILTER (flagged) FROM flags GROUP BY 1")
    assert len(flags) == 2 and flags[0][1] == flags[1][1]


def test_scores_that_read_no_dynamics_train_nothing(small_workspace, small_training):
    plan = plan_run(small_workspace, "small", ["random"], small_training())
    assert plan.training is None
    compute(small_workspace, plan, "cpu")
    stages = [e["stage"] for e in read_journal(small_workspace.run_dir(run_id(plan))) if e["event"] == "stage"]
    assert stages == ["duplicates", "scores"]
    assert ask(small_workspace, "SELECT count(*) FROM dynamics") == [(0,)]


def published(workspace, run):
    """Everything a run published that does not tell the time, as comparable values."""
    tables = {}
    with connected(workspace, "small", [run]) as connection:
        for view, order in {
            "dynamics": "seed, epoch, sample_id",
            "logits": "seed, epoch, sample_id",
            "scores": "score, sample_id",
            "seed_scores": "score, seed, sample_id",
            "flags": "rule, sample_id",
            "suggestions": "sample_id",
        }.items():
            tables[view] = connection.execute(f"SELECT * FROM {view} ORDER BY {order}").fetchall()
        tables["epochs"] = connection.execute(
            "SELECT seed, epoch, train_loss, train_accuracy, test_accuracy, lr FROM epochs ORDER BY 1, 2"
        ).fetchall()
    folder = workspace.published_dir(run)
    weights = {k: v.tobytes() for k, v in load_file(folder / "weights.safetensors").items()}
    features = load_file(folder / "features.safetensors")["features"].tobytes()
    return tables, weights, features


RUN = """
import json, sys
from pathlib import Path
import engine.training.tasks as tasks
from engine.runs.compute import compute
from engine.spec import spec_from_json
from engine.store.workspace import Workspace
import functools
import engine.runs.pipeline as pipeline
pipeline.train_tasks = functools.partial(tasks.train_tasks, checkpoint_seconds=0.0)
compute(Workspace.open(Path(sys.argv[1])), spec_from_json(json.loads(sys.argv[2])), "cpu")
"""


def newest(folder):
    """When the latest checkpoint was written."""
    return max((path.stat().st_mtime_ns for path in folder.glob("partial/*.checkpoint.safetensors")), default=0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_run_killed_and_resumed_publishes_the_same_as_an_unbroken_one(
    small_workspace, tmp_path, small_training, optimizer
):
    training = small_training(epochs=30, optimizer=optimizer, lr=0.01, schedule="cosine", augment="crop+flip")
    plan = plan_run(small_workspace, "small", ["aum", "forgetting"], training)
    wanted = run_id(plan)
    command = [sys.executable, "-c", RUN, str(small_workspace.root), json.dumps(spec_to_json(plan))]
    folder = small_workspace.run_dir(wanted)
    kills = 0
    for at_least in (1, 2, 3):  # each attempt is killed once it has come further than the one before
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        before = newest(folder)
        while time.monotonic() < deadline and process.poll() is None:
            if newest(folder) > before:
                time.sleep(0.05 * at_least)
                break
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    if not small_workspace.is_published(wanted):
        assert fetch_job(small_workspace, wanted).state == "interrupted"
        compute(small_workspace, plan, "cpu")
    broken = published(small_workspace, wanted)
    small_workspace.remove_run(wanted)
    compute(small_workspace, plan, "cpu")
    whole = published(small_workspace, wanted)
    assert broken[1] == whole[1] and broken[2] == whole[2]
    for view, rows in whole[0].items():
        assert broken[0][view] == rows, view


def test_a_cancelled_run_keeps_its_work_and_resumes(small_workspace, small_training):
    plan = plan_run(small_workspace, "small", ["aum"], small_training(epochs=50))
    wanted = run_id(plan)
    folder = small_workspace.run_dir(wanted)

    def stop(stage, fraction, left):
        if "seed1" in stage and not (folder / "cancel").exists():
            assert fetch_job(small_workspace, wanted).state == "running"
            cancel(small_workspace, wanted)

    with pytest.raises(Cancelled):
        compute(small_workspace, plan, "cpu", stop)
    job = fetch_job(small_workspace, wanted)
    assert job.state == "cancelled" and 0 < job.fraction < 1
    assert not small_workspace.is_published(wanted)
    with pytest.raises(SpecError, match="is cancelled, not running"):
        cancel(small_workspace, wanted)
    assert compute(small_workspace, plan, "cpu") == (wanted, False)
    assert fetch_job(small_workspace, wanted).state == "done"
    starts = [e["event"] for e in read_journal(folder) if e["event"] in ("started", "cancelled", "published")]
    assert starts == ["started", "cancelled", "started", "published"]


def test_two_at_once_are_told_so(small_workspace, plan):
    wanted = run_id(plan)
    small_workspace.start_run(wanted, {"spec": spec_to_json(plan)})
    with exclusive(small_workspace.run_dir(wanted) / "lock", "x"):
        with pytest.raises(BusyError, match=f"run {wanted} is being computed"):
            compute(small_workspace, plan, "cpu")
        with pytest.raises(BusyError, match="winnow cancel"):
            small_workspace.remove_run(wanted)


def test_a_training_that_diverges_says_so_and_publishes_nothing(small_workspace, small_training):
    plan = plan_run(small_workspace, "small", ["aum"], small_training(optimizer="sgd", lr=100.0, weight_decay=10.0))
    with pytest.raises(ScoreInputError, match="lower the learning rate"):
        compute(small_workspace, plan, "cpu")
    job = fetch_job(small_workspace, run_id(plan))
    assert job.state == "failed" and "lower the learning rate" in job.message
    assert not small_workspace.is_published(run_id(plan))


def test_a_set_without_truth_has_no_metrics(small_workspace, small_training):
    ingest(small_workspace, IngestSpec(name="unknown", source="digits", limit=150))
    compute(small_workspace, plan_run(small_workspace, "unknown", ["aum"], small_training()), "cpu")
    assert ask(small_workspace, "SELECT count(*) FROM metrics", "unknown") == [(0,)]
    assert ask(small_workspace, "SELECT count(*) > 0 FROM flags", "unknown") == [(True,)]


def test_the_plan_asks_only_for_what_is_needed(small_workspace, small_training):
    every = plan_run(small_workspace, "small", ["all"], small_training())
    assert (every.neighbors, every.embedding, every.threshold_rounds) == (15, "umap", 2)
    one = plan_run(small_workspace, "small", ["el2n"], small_training())
    assert (one.neighbors, one.embedding, one.threshold_rounds) == (0, "none", 0)
    assert plan_run(small_workspace, "small", ["aum"], small_training()).threshold_rounds == 2
    assert spec_from_json(spec_to_json(every)) == every
    with pytest.raises(SpecError, match="unknown field .novelty.; it was made by a newer winnow"):
        spec_from_json({**spec_to_json(every), "novelty": 1})


def test_threshold_rounds_do_not_change_what_the_seeds_learn(small_workspace, small_training):
    plan = plan_run(small_workspace, "small", ["aum"], small_training())
    alone, _ = compute(small_workspace, replace(plan, threshold_rounds=0), "cpu")
    scores = ask(small_workspace, "SELECT value FROM scores ORDER BY sample_id")
    small_workspace.remove_run(alone)
    compute(small_workspace, plan, "cpu")
    assert ask(small_workspace, "SELECT value FROM scores ORDER BY sample_id") == scores


def test_environment_and_notes_are_recorded(small_workspace, plan):
    run, _ = compute(small_workspace, plan, "cpu")
    [(environment, notes)] = ask(small_workspace, "SELECT environment, notes FROM runs")
    recorded = json.loads(environment)
    assert recorded["device"] == "cpu" and recorded["torch"] and recorded["cpus"] == os.cpu_count()
    assert any("99th percentile of 18 threshold samples" in note for note in json.loads(notes))  # floor(200 / 11)
    assert pipeline.find_trained(small_workspace, plan.fingerprint, plan.training).run_id == run
