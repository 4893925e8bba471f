"""Relabelings as runs: what they train, publish and refuse, resumed and canceled; and that no truth decides anything."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import torch

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import Cancelled, NotFoundError, SpecError
from engine.queries.connection import connected, fetch_sql
from engine.queries.relabelings import fetch_changes, fetch_relabel_bins, fetch_relabelings, fetch_reliability
from engine.queries.versions import create_version
from engine.relabel.registry import all_learners
from engine.runs.compute import compute
from engine.runs.options import plan_relabel_from, plan_run_from
from engine.spec import RelabelSpec, run_id, spec_from_json, spec_to_json
from engine.store.jobs import cancel, fetch_job
from engine.store.journal import read_journal
from engine.store.workspace import Workspace

QUICK = {"epochs": 3, "batch_size": 64}
ROP = {"learner": "cross-entropy", "keep": "0.4,0.8", "nli_epochs": 2, "neighbors": 5, **QUICK}
EACH = {
    "dividemix": QUICK | {"epochs": 11},
    "vote": {},
    "neighbors": {"neighbors": 5},
    "debug": QUICK,
    "sop+": QUICK,
    "rop": ROP,
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Steps as short as these wait for each other's threads, on a busy machine for ever."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def do(workspace, method, name="small", **options):
    spec = plan_relabel_from(workspace, name, method, options)
    return compute(workspace, spec, "cpu")[0]


def read(workspace, run, sql, name="small"):
    with connected(workspace, name, [run]) as connection:
        return fetch_sql(connection, sql)


def proposed(workspace, run, name="small"):
    return read(workspace, run, "SELECT * EXCLUDE run_id FROM suggestions ORDER BY sample_id", name)


def found(workspace, run, name="small"):
    """All that a relabeling published, but for times."""
    views = {"suggestions": "*", "relabelings": "* EXCLUDE (seconds, select_seconds)", "relabel_bins": "*"}
    with connected(workspace, name, [run]) as connection:
        return {v: connection.execute(f"SELECT {c} FROM {v} ORDER BY ALL").fetchall() for v, c in views.items()}


# What is proposed --------------------------------------------------------------------------------------------------


def test_vote_is_what_the_networks_of_the_run_predicted_most(scored_workspace):
    run = do(scored_workspace, "vote")
    (source,) = set(scored_workspace.published_runs()) - {run}
    own = read(
        scored_workspace,
        source,
        "SELECT sample_id, suggested_label, confidence FROM suggestions WHERE method = 'prediction_vote' ORDER BY sample_id",
    )
    mine = proposed(scored_workspace, run)
    assert set(mine["method"]) == {"vote"} and len(mine) > 20
    both = mine.merge(own, on="sample_id", suffixes=("", "_own"))
    assert (both["suggested_label"] == both["suggested_label_own"]).mean() > 0.95  # a tie proposes nothing here
    assert (both["confidence"] - both["confidence_own"]).abs().max() < 1e-6
    assert set(mine["sample_id"]) <= set(own["sample_id"])


def test_neighbors_read_the_features_of_the_run(scored_workspace):
    run = do(scored_workspace, "neighbors", neighbors=5)
    mine = proposed(scored_workspace, run)
    assert len(mine) and set((mine["confidence"] * 5).round(4)) <= {1, 2, 3, 4, 5}
    changes = read(scored_workspace, run, "SELECT avg(CAST(suggested_label = true_label AS INT)) AS r FROM suggestions "
                   "JOIN samples USING (sample_id)")  # fmt: skip
    assert changes["r"][0] > 0.5


def test_debug_proposes_labels_of_the_suspects_alone(scored_workspace):
    run = do(scored_workspace, "debug", share=0.1, **QUICK)
    suspects = read(
        scored_workspace,
        next(r for r in scored_workspace.published_runs() if r != run),
        "SELECT sample_id FROM scores WHERE score = 'aum' AND rank >= 180",
    )["sample_id"]
    assert set(proposed(scored_workspace, run)["sample_id"]) <= set(suspects) and len(suspects) == 20
    rows = read(scored_workspace, run, "FROM relabelings ORDER BY samples")
    assert rows[["subset", "samples"]].to_numpy().tolist() == [["without suspects", 180], ["all", 200]]
    assert rows["noise"][0] < rows["noise"][1] == pytest.approx(0.2)


def test_rop_keeps_what_agrees_with_its_neighbors_and_is_held_against_a_draw(small_workspace):
    ingest(small_workspace, IngestSpec(name="more", source="digits", limit=600, noise="symmetric:0.3"))
    run = do(small_workspace, "rop", "more", learner="sop+", keep="0.4,0.7", epochs=8, batch_size=64, nli_epochs=4)
    with connected(small_workspace, "more", [run]) as connection:
        rows = fetch_relabelings(connection, run)
        bins = fetch_relabel_bins(connection, run)
        reliability = fetch_reliability(connection, run)
    names = rows[["kept_fraction", "subset", "learner"]].to_numpy().tolist()
    n = len(read(small_workspace, run, "FROM samples WHERE split = 'train'", "more"))
    assert names == [[k, s, how] for k in (0.4, 0.7) for s in ("rop", "random") for how in ("cross-entropy", "sop+")]
    for share, mine in rows.groupby("kept_fraction"):
        noise = mine.groupby("subset")["noise"].mean()
        assert noise["rop"] < 0.05 < 0.2 < noise["random"]
        assert set(mine["samples"]) == {round(share * n)}
    assert rows.loc[rows["learner"] == "cross-entropy", "noise_left"].isna().all()
    assert (rows["select_seconds"] > 0).sum() == 4 and rows["accuracy"].between(0.3, 1).all()
    assert (
        bins["bin"].between(0, 13).all()
        and bins["samples"].sum() == rows.loc[rows["learner"] == "sop+", "samples"].sum()
    )
    lowest = bins[bins["subset"] == "random"].groupby("bin")["right_given"].mean()
    assert lowest.iloc[0] > 0.9 > 0.2 > lowest.iloc[-1]  # NLI tells right labels from wrong ones
    assert reliability["n"].sum() == len(proposed(small_workspace, run, "more"))


def test_a_robust_learner_corrects_most_wrong_labels(tmp_path):
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec(name="noisy", source="digits", limit=700, noise="symmetric:0.3"))
    run = do(workspace, "sop+", "noisy", epochs=40, batch_size=64)
    with connected(workspace, "noisy", [run]) as connection:
        rows = fetch_relabelings(connection, run).set_index("learner")
        changes = fetch_changes(connection, run)
    assert rows["accuracy"]["sop+"] > rows["accuracy"]["cross-entropy"] + 0.04
    assert rows["noise_left"]["sop+"] < rows["noise"]["sop+"] / 2
    assert changes["labels"].is_monotonic_decreasing and changes["right"].iloc[0] > 0.8
    named = create_version(workspace, "noisy", "corrected", relabel_above=0.9, run=run)
    assert named.facts["wrong_left"] < named.facts["wrong_before"] / 2
    assert named.facts["relabeled_by_suggestion"] == changes.loc[changes["from"] == 0.9, "labels"].item()


# No truth ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", EACH)
def test_the_proposals_are_the_same_whatever_the_truth_is(scored_workspace, tmp_path, method):
    others = []
    for i, truth in enumerate(("NULL", "(label + sample_id) % 10")):
        root = Path(shutil.copytree(scored_workspace.root, tmp_path / f"truth {i}"))
        others.append(Workspace.open(root))
        with duckdb.connect(str(others[-1].require_dataset("small"))) as connection:
            connection.execute(f"UPDATE samples SET true_label = {truth}")
    first = proposed(scored_workspace, do(scored_workspace, method, **EACH[method]))
    for other in others:
        pd.testing.assert_frame_equal(proposed(other, do(other, method, **EACH[method])), first)
    without = do(others[0], method, **EACH[method])
    assert read(others[0], without, "SELECT count(noise) AS n FROM relabelings")["n"][0] == 0
    with connected(others[0], "small", [without]) as connection:
        assert fetch_reliability(connection, without).empty and fetch_changes(connection, without)["right"].isna().all()


# The run ------------------------------------------------------------------------------------------------------------


CODE = """
import json, sys
from pathlib import Path
import torch
from engine.runs.compute import compute
from engine.spec import spec_from_json
from engine.store.workspace import Workspace
torch.set_num_threads(1)
compute(Workspace.open(Path(sys.argv[1])), spec_from_json(json.loads(sys.argv[2])), "cpu")
"""


def units(folder):
    return [event["unit"] for event in read_journal(folder) if event["event"] == "relabeled"]


def test_a_killed_relabeling_resumes_with_the_same_numbers(small_workspace):
    options = {"seeds": 2, "epochs": 8, "batch_size": 32, "keep": "0.6", "learner": "sop+", "nli_epochs": 2}
    spec = plan_relabel_from(small_workspace, "small", "rop", options)
    wanted = run_id(spec)
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    process = subprocess.Popen([sys.executable, "-c", CODE, str(small_workspace.root), json.dumps(spec_to_json(spec))])
    folder, deadline = small_workspace.run_dir(wanted), time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and len(units(folder)) < 3:
        time.sleep(0.005)
    process.kill()
    process.wait()
    kept = units(folder)
    assert len(kept) >= 3 and not small_workspace.is_published(wanted)
    assert compute(small_workspace, spec, "cpu") == (wanted, False)
    everything = units(folder)
    assert everything[: len(kept)] == kept and len(everything) == len(set(everything)) == 10  # none is trained twice
    assert not (folder / "partial").exists()
    resumed = found(small_workspace, wanted)
    assert compute(small_workspace, spec, "cpu") == (wanted, True)
    small_workspace.remove_run(wanted)
    compute(small_workspace, spec, "cpu")
    assert found(small_workspace, wanted) == resumed


def test_a_canceled_relabeling_says_so(small_workspace):
    spec = plan_relabel_from(small_workspace, "small", "sop+", {"seeds": 3, "epochs": 40, "batch_size": 16})

    def listen(stage, fraction, left):
        if fraction > 0.1 and fetch_job(small_workspace, run_id(spec)).state == "running":
            cancel(small_workspace, run_id(spec))

    with pytest.raises(Cancelled):
        compute(small_workspace, spec, "cpu", listen)
    job = fetch_job(small_workspace, run_id(spec))
    assert (job.state, job.kind) == ("cancelled", "relabel")


def test_without_a_test_split_accuracies_are_left_out_and_it_is_said(small_workspace):
    ingest(
        small_workspace, IngestSpec(name="one", source="digits", limit=100, test_fraction=0.0, noise="symmetric:0.2")
    )
    run = do(small_workspace, "sop+", "one", **QUICK)
    rows = read(small_workspace, run, "FROM relabelings", "one")
    assert rows["accuracy"].isna().all() and rows["noise_left"].notna().any()
    notes = read(small_workspace, run, "SELECT notes FROM runs", "one")["notes"][0]
    assert "there is no test split, so accuracies are left out" in json.loads(notes)[0]


def test_a_subset_that_lost_a_class_is_refused_and_nothing_published(small_workspace):
    with pytest.raises(
        SpecError, match="that keeps 0.05 has no sample of class [0-9]: no network can learn it; raise --keep"
    ):
        do(small_workspace, "rop", **ROP | {"keep": "0.05", "unbalanced": True, "neighbors": 3})
    assert small_workspace.published_runs() == []


def test_switches_of_nli_are_other_runs(small_workspace):
    def plan(**given):
        return plan_relabel_from(small_workspace, "small", "rop", {**ROP, **given})

    switches = ("no_feature_propagation", "no_label_propagation", "no_bias", "unbalanced")
    ids = {run_id(plan()), *(run_id(plan(**{name: True})) for name in switches), run_id(plan(neighbors=20))}
    assert len(ids) == 6
    assert plan(keep="0.8, 0.4,0.8").keep == (0.4, 0.8) == plan(keep=[0.8, 0.4]).keep
    plain, bare = (do(small_workspace, "rop", **ROP, **given) for given in ({}, {"no_label_propagation": True}))
    noise = [
        read(small_workspace, run, "SELECT * FROM relabelings WHERE subset = 'rop'")["noise"] for run in (plain, bare)
    ]
    assert not noise[0].equals(noise[1])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("vot", {}, "unknown method 'vot'; did you mean 'vote'"),
        ("rop", {"learner": "sop"}, r"unknown learner 'sop'; did you mean 'sop\+'"),
        ("rop", {"keep": "0.2,1.2"}, "--keep has 1.2; allowed: shares above 0 to 1"),
        ("rop", {"keep": "0"}, "--keep has 0; allowed"),
        ("rop", {"keep": "half"}, "--keep has 'half'; allowed"),
        ("rop", {"keep": "nan"}, "--keep has nan; allowed"),
        ("dividemix", {"epochs": 9}, "--epochs is 9; allowed: 11 to 10000 .with dividemix."),
        ("sop+", {"preset": "dividemix-images"}, "unknown preset 'dividemix-images'; .*for the learner"),
        ("debug", {"preset": "sop+-images"}, "--preset does nothing with --method debug"),
        ("vote", {"keep": "0.5"}, "--keep does nothing with --method vote; it takes --run"),
        ("sop+", {"share": 0.2}, "--share does nothing with --method sop+"),
        ("debug", {"score": "aun"}, "unknown score 'aun'; did you mean 'aum'"),
        ("debug", {"share": 0.95}, "--share is 0.95; allowed: 0.001 to 0.9"),
        ("neighbors", {"run": "ffff"}, "unknown run 'ffff'"),
        ("sop+", {"epoch": 3}, "unknown option of relabel 'epoch'; did you mean 'epochs'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(scored_workspace, method, options, message):
    before = scored_workspace.run_ids()
    with pytest.raises((SpecError, NotFoundError), match=message.replace("sop+ ", r"sop\+ ")) as caught:
        do(scored_workspace, method, **options)
    assert "\n" not in str(caught.value) and scored_workspace.run_ids() == before


def test_a_preset_gives_the_training_and_the_settings_and_what_is_typed_takes_precedence(scored_workspace):
    spec = plan_relabel_from(scored_workspace, "small", "dividemix", {"preset": "dividemix-features", "epochs": 6})
    training = spec.training
    assert (training.model, training.lr, training.optimizer, training.schedule) == ("head", 0.02, "sgd", "cosine")
    assert (training.epochs, training.seeds, training.batch_size) == (6, 3, 128)  # more than its warm-up of 3
    plain = plan_relabel_from(scored_workspace, "small", "dividemix", {"epochs": 11})
    assert plain.training.batch_size == 64 and plain.training.optimizer == "adam" and plain.training.seeds == 1
    run, _ = compute(
        scored_workspace, dataclasses.replace(spec, training=dataclasses.replace(training, seeds=1)), "cpu"
    )
    assert len(proposed(scored_workspace, run))


def test_a_learner_on_features_has_the_settings_for_features_unless_others_are_given(small_workspace, tmp_path):
    with connected(small_workspace, "small", []) as connection:
        labels = fetch_sql(connection, "SELECT label FROM samples ORDER BY sample_id")["label"].to_numpy()
    rows = np.random.default_rng(0).normal(size=(len(labels), 100)).astype(np.float32)
    rows[:, :10] += 4 * np.eye(10, dtype=np.float32)[labels]
    np.save(tmp_path / "features.npy", rows)
    options = {"features": str(tmp_path / "features.npy"), "model": "head", "epochs": 2, "seeds": 1, "scores": "el2n"}
    compute(small_workspace, plan_run_from(small_workspace, "small", options), "cpu")

    def plan(**given):
        return plan_relabel_from(small_workspace, "small", "sop+", given)

    assert plan().preset == "sop+-features" and plan().training.optimizer == "sgd" and plan().training.trained_on
    assert plan(epochs=4).training.epochs == 4 and plan(epochs=4).preset == "sop+-features"
    assert plan(preset="sop+-images").preset == "sop+-images"
    assert plan(model="mlp").preset == "" and plan(model="mlp").training.optimizer == "adam"
    assert plan_relabel_from(small_workspace, "small", "debug", {"score": "el2n"}).preset == ""  # plain training


def test_a_method_that_reads_a_run_says_which_is_missing(small_workspace):
    with pytest.raises(NotFoundError, match="no run of 'small' is there for the method vote to read; winnow run small"):
        do(small_workspace, "vote")
    with pytest.raises(SpecError, match="winnow run small --scores aum computes it"):
        do(small_workspace, "debug")


def test_learners_are_declared_with_what_they_cost():
    learners = all_learners()
    assert next(iter(learners)) == "cross-entropy" and learners["cross-entropy"].cost == 1
    assert all(found.cost > 1 and found.epochs > 1 for name, found in learners.items() if name != "cross-entropy")
    with pytest.raises(SpecError, match="--nli-epochs is 0; allowed: 1 to 10000"):
        RelabelSpec("mine", "feed", "rop", None, nli_epochs=0)
