"""Proofs: what is trained on what, paired by seed, resumed, and found again."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from given_verdicts import JUDGED, give_verdict

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.dataset import Dataset
from engine.errors import Cancelled, NotFoundError, SpecError, StorageError
from engine.queries.connection import connected
from engine.queries.curated import CuratedSet, curate
from engine.queries.proofs import fetch_gain, fetch_proof, fetch_proof_journal
from engine.queries.versions import create_version
from engine.runs.compute import compute
from engine.runs.options import plan_prove_from
from engine.runs.prove import plan_prove, run_prove
from engine.spec import TrainingSpec, run_id, spec_from_json, spec_to_json
from engine.store.decisions import decide, undo
from engine.store.jobs import cancel, fetch_job
from engine.store.journal import proof_networks, read_journal

TRAINING = TrainingSpec(epochs=2, seeds=2, batch_size=64)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Steps as short as these wait for each other's threads, on a busy machine for ever."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def labels(workspace, name="small"):
    with connected(workspace, name, []) as connection:
        rows = connection.execute("SELECT label, true_label FROM samples WHERE split = 'train' ORDER BY sample_id")
        return np.array(rows.fetchall(), np.int32).T


def everyone(workspace, *, without=(), relabel=None, name="small"):
    given = labels(workspace, name)[0]
    given[list(relabel or {})] = list((relabel or {}).values())
    ids = np.setdiff1d(np.arange(len(given), dtype=np.int32), np.array(without, np.int32))
    return CuratedSet(ids, given[ids])


def prove(workspace, curated, training=TRAINING, name="small", **options):
    spec = plan_prove(workspace, name, curated, "a test", training, **options)
    run, _ = compute(workspace, spec, "cpu", curated=curated)
    return run


def rows(workspace, run, name="small"):
    with connected(workspace, name, [run]) as connection:
        return fetch_proof(connection, run).drop(columns="seconds").to_dict("records")


def notes(workspace, run, name="small"):
    with connected(workspace, name, [run]) as connection:
        return json.loads(connection.execute("SELECT notes FROM runs").fetchall()[0][0])


# The set -----------------------------------------------------------------------------------------------------------


def test_the_curated_set_is_what_people_decided(small_workspace):
    with pytest.raises(SpecError, match="no training sample of 'small' is decided to be dropped or relabeled"):
        curate(small_workspace, "small")
    given = labels(small_workspace)[0]
    other = int((given[5] + 1) % 10)
    decide(small_workspace, "small", [0, 1, 2], "drop")
    decide(small_workspace, "small", [1, 3], "keep")  # the latest decision of a sample counts
    decide(small_workspace, "small", [5], "relabel", new_label=other)
    decide(small_workspace, "small", [205], "drop")  # of the test split, which is measured as it is
    found, source = curate(small_workspace, "small")
    assert source == "decisions"
    assert found.sample_ids.tolist() == [i for i in range(200) if i not in (0, 2)]
    assert found.labels[found.sample_ids.tolist().index(5)] == other
    assert found.hash == everyone(small_workspace, without=[0, 2], relabel={5: other}).hash


def test_a_condition_says_what_stays_and_decisions_correct_the_labels(small_workspace):
    given, true = labels(small_workspace)
    wrong = np.flatnonzero(given != true)
    decide(small_workspace, "small", [int(wrong[0])], "relabel", new_label=int(true[wrong[0]]))
    found, source = curate(small_workspace, "small", where="label = true_label OR action = 'relabel'")
    assert source == "where label = true_label OR action = 'relabel'"
    assert found.hash == everyone(small_workspace, without=wrong[1:], relabel={wrong[0]: true[wrong[0]]}).hash


def test_the_shortlist_is_left_out_but_for_what_people_kept(scored_workspace):
    run = scored_workspace.published_runs()[0]
    give_verdict(scored_workspace.root, run, [7, 3, 5, 210, *range(100, 200)], 4, JUDGED)
    other = int((labels(scored_workspace)[0][5] + 1) % 10)
    decide(scored_workspace, "small", [3], "keep")
    decide(scored_workspace, "small", [5], "relabel", new_label=other)
    decide(scored_workspace, "small", [9], "drop")
    found, source = curate(scored_workspace, "small", drop_shortlist=True)
    assert found.hash == everyone(scored_workspace, without=[7, 9], relabel={5: other}).hash
    assert source == "decisions, shortlist dropped"
    with pytest.raises(SpecError, match="exclude each other"):
        curate(scored_workspace, "small", where="NOT flagged", drop_shortlist=True)


def test_a_version_is_proved_as_it_was_named(small_workspace):
    decide(small_workspace, "small", [0, 1], "drop")
    create_version(small_workspace, "small", "first")
    decide(small_workspace, "small", [2], "drop")
    found, source = curate(small_workspace, "small", version="first")
    assert found.hash == everyone(small_workspace, without=[0, 1]).hash and source == "version first"
    assert curate(small_workspace, "small")[0].hash == everyone(small_workspace, without=[0, 1, 2]).hash
    with pytest.raises(NotFoundError, match="did you mean 'first'"):
        curate(small_workspace, "small", version="fist")


def test_without_a_shortlist_there_is_none_to_drop(small_workspace):
    with pytest.raises(NotFoundError, match="no run of 'small' has a shortlist; winnow run small makes one"):
        curate(small_workspace, "small", drop_shortlist=True)


def test_a_set_is_ascending_and_its_hash_is_of_its_content():
    one = CuratedSet(np.array([1, 2], np.int32), np.array([0, 3], np.int32))
    assert one.hash == CuratedSet(np.array([1, 2], np.int32), np.array([0, 3], np.int32)).hash
    assert one.hash != CuratedSet(np.array([1, 2], np.int32), np.array([3, 0], np.int32)).hash
    for ids in ([2, 1], [1, 1]):
        with pytest.raises(SpecError, match="ascend, each once"):
            CuratedSet(np.array(ids, np.int32), np.array([0, 3], np.int32))
    with pytest.raises(SpecError, match="as many labels"):
        CuratedSet(np.array([1], np.int32), np.array([0, 3], np.int32))


# What is trained ---------------------------------------------------------------------------------------------------


def test_both_sets_are_trained_with_the_same_seeds_for_as_many_epochs(small_workspace):
    run = prove(small_workspace, everyone(small_workspace, without=range(100)))
    found = rows(small_workspace, run)
    assert [(r["seed"], r["set"], r["samples"]) for r in found] == [
        (0, "full", 200), (0, "curated", 100), (1, "full", 200), (1, "curated", 100),
    ]  # fmt: skip
    assert [r["steps"] for r in found] == [8, 4, 8, 4]  # 2 epochs of batches of 64
    assert {(r["tested"], r["held_out"]) for r in found} == {(50, False)}
    fixed = prove(small_workspace, everyone(small_workspace, without=range(100)), steps="fixed")
    assert fixed != run and [r["steps"] for r in rows(small_workspace, fixed)] == [8, 8, 8, 8]


def test_a_network_is_the_one_that_the_plain_loop_trains(small_workspace):
    """The curated network of a seed: on what stays, in the order of its ids, with corrected labels."""
    from engine.data.loader import load_split, normalization
    from engine.training.loop import Normalization, build_optimizer, compute_accuracy, train_epochs
    from engine.training.models import build_model

    given, true = labels(small_workspace)
    wrong = np.flatnonzero(given != true)
    curated = everyone(small_workspace, without=wrong[5:], relabel={i: true[i] for i in wrong[:5]})
    found = rows(small_workspace, prove(small_workspace, curated))
    samples, test = (load_split(small_workspace, "small", split) for split in ("train", "test"))
    scale = Normalization(*normalization(samples))
    samples.labels[torch.from_numpy(curated.sample_ids).long()] = torch.from_numpy(curated.labels).long()
    kept = samples.subset(torch.from_numpy(curated.sample_ids).long())
    network = build_model("mlp", tuple(samples.inputs.shape[1:]), 10, 1)
    for _ in train_epochs(network, build_optimizer(network, TRAINING), kept, scale, TRAINING, 1):
        pass
    assert found[3]["accuracy"] == compute_accuracy(network, test, scale)


def test_the_same_set_gives_a_difference_of_exactly_zero_and_trains_once(small_workspace):
    run = prove(small_workspace, everyone(small_workspace))
    assert len({n["network"] for n in proof_networks(read_journal(small_workspace.run_dir(run)))}) == 2
    with connected(small_workspace, "small", [run]) as connection:
        gain = fetch_gain(connection, run)
    assert (gain.difference, gain.low, gain.high, gain.pairs) == (0.0, 0.0, 0.0, 2)
    assert gain.sentence == "0.0 points (0.0 to 0.0): no difference shown"
    assert "the curated set is the full set" in notes(small_workspace, run)[0]


def test_a_set_without_wrong_labels_wins_clearly(tmp_path):
    from engine.store.workspace import Workspace

    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec(name="noisy", source="digits", limit=900, noise="symmetric:0.3"))
    noisy = Dataset(workspace, "noisy")
    training = {"epochs": 15, "batch_size": 64, "progress": False}
    run = noisy.prove(where="label = true_label", seeds=3, **training)
    gain = run.gain()
    assert gain.better and gain.difference > 0.04 and 0 < gain.low < gain.difference < gain.high
    assert gain.sentence.endswith("the curated set is better")
    assert run.gain("accuracy_true") == gain  # the labels of the test split are right
    assert noisy.prove(where="true_label = label", seeds=3, **training).id == run.id  # the same set, said otherwise
    again = noisy.prove(where="label = true_label AND sample_id > 20", seeds=3, **training)
    seconds = [r.proof().query("set == 'full'")["seconds"].tolist() for r in (run, again)]
    assert again.id != run.id and seconds[0] == seconds[1]  # the networks of the full set are not trained twice
    worse = noisy.prove(where="label <> true_label", seeds=3, **training).gain()
    assert worse.better is False and worse.sentence.endswith("the full set is better")


def test_one_seed_has_no_interval(small_workspace):
    run = prove(small_workspace, everyone(small_workspace, without=[3]), TrainingSpec(epochs=1, seeds=1))
    with connected(small_workspace, "small", [run]) as connection:
        gain = fetch_gain(connection, run)
    assert (gain.low, gain.high, gain.better, gain.pairs) == (None, None, None, 1)
    assert "one seed: no interval" in gain.sentence


def test_a_class_of_which_nothing_stays_is_said(small_workspace):
    sevens = np.flatnonzero(labels(small_workspace)[0] == 7)
    run = prove(small_workspace, everyone(small_workspace, without=sevens))
    assert notes(small_workspace, run) == ["no sample of the curated set has the class 7: it cannot be predicted"]


def test_too_few_samples_are_refused(small_workspace):
    for stay in (1, 0):
        with pytest.raises(SpecError, match=f"{stay} of 200 samples stay in the curated set; allowed: 2 or more"):
            prove(small_workspace, everyone(small_workspace, without=range(stay, 200)))
    assert small_workspace.run_ids() == []


def test_without_a_test_split_every_seed_holds_out_its_own_fifth(small_workspace):
    ingest(
        small_workspace, IngestSpec(name="one", source="digits", limit=100, test_fraction=0.0, noise="symmetric:0.2")
    )
    given, true = labels(small_workspace, "one")
    n = len(given)
    curated = everyone(small_workspace, without=np.flatnonzero(given != true), name="one")
    run = prove(small_workspace, curated, name="one")
    found = rows(small_workspace, run, "one")
    assert {(r["tested"], r["held_out"]) for r in found} == {(n // 5, True)}
    assert all(r["samples"] == n - n // 5 for r in found if r["set"] == "full")
    assert all(r["samples"] < len(curated) for r in found if r["set"] == "curated")
    assert any(r["accuracy"] != r["accuracy_true"] for r in found)  # wrong labels are among those held out
    assert (
        "there is no test split: every seed holds out 20 % of the training samples"
        in notes(small_workspace, run, "one")[0]
    )


def test_networks_trained_as_one_are_those_trained_alone(small_workspace):
    curated = everyone(small_workspace, without=range(0, 200, 3))
    training = TrainingSpec(epochs=6, seeds=3, batch_size=64)
    run = prove(small_workspace, curated, training)
    plain = rows(small_workspace, run)
    small_workspace.remove_run(run)
    spec = plan_prove(small_workspace, "small", curated, "a test", training)
    run_prove(small_workspace, spec, torch.device("cpu"), curated=curated, stacked=True)
    for one, other in zip(plain, rows(small_workspace, run), strict=True):
        assert abs(one.pop("accuracy") - other.pop("accuracy")) < 1.5 / 50  # one of 50 may fall to either side
        assert abs(one.pop("accuracy_true") - other.pop("accuracy_true")) < 1.5 / 50
        assert one == other


# The run -----------------------------------------------------------------------------------------------------------


def test_the_spec_names_the_set_by_its_content(small_workspace):
    ours, theirs = everyone(small_workspace, without=[1]), everyone(small_workspace, without=[2])
    plan = lambda curated, source="x": plan_prove(small_workspace, "small", curated, source, TRAINING)  # noqa: E731
    assert run_id(plan(ours)) == run_id(plan(everyone(small_workspace, without=[1]), "in other words"))
    assert run_id(plan(ours)) != run_id(plan(theirs))
    stored = json.loads(json.dumps(spec_to_json(plan(ours))))
    assert spec_from_json(stored) == plan(ours) and stored["kept"] == 199


def test_decisions_after_the_start_change_nothing(small_workspace):
    batch = decide(small_workspace, "small", [0, 1, 2], "drop")
    spec, curated = plan_prove_from(small_workspace, "small", {"seeds": 1, "epochs": 1})
    run, _ = compute(small_workspace, spec, "cpu", curated=curated)
    assert undo(small_workspace, "small") == batch
    assert [r["samples"] for r in rows(small_workspace, run)] == [200, 197]
    assert compute(small_workspace, spec, "cpu") == (run, True)


def test_the_training_is_that_of_the_run_and_what_is_given_takes_precedence(scored_workspace, small_training):
    plan = lambda **given: plan_prove_from(scored_workspace, "small", {"where": "sample_id > 3", **given})[0].training  # noqa: E731
    assert (plan().batch_size, plan().epochs, plan().seeds) == (64, small_training().epochs, 5)
    assert (plan(epochs=9, seeds=2).epochs, plan(epochs=9, seeds=2).batch_size) == (9, 64)
    assert plan(model="lenet") == TrainingSpec(model="lenet", logit_seeds=0)
    with pytest.raises(SpecError, match="unknown option of prove 'epoch'; did you mean 'epochs'"):
        plan(epoch=3)


CODE = """
import json, sys
from pathlib import Path
from engine.runs.compute import compute
from engine.spec import spec_from_json
from engine.store.workspace import Workspace
compute(Workspace.open(Path(sys.argv[1])), spec_from_json(json.loads(sys.argv[2])), "cpu")
"""


def test_a_killed_proof_resumes_by_its_id_with_the_same_networks(small_workspace):
    """The run itself holds the set: the process that resumes it knows the spec alone."""
    curated = everyone(small_workspace, without=range(50))
    spec = plan_prove(small_workspace, "small", curated, "a test", TrainingSpec(epochs=10, seeds=4, batch_size=16))
    wanted = run_id(spec)

    def stop_early(stage, fraction, left):
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        compute(small_workspace, spec, "cpu", stop_early, curated=curated)
    folder = small_workspace.run_dir(wanted)
    kept = proof_networks(read_journal(folder))
    assert 1 <= len(kept) < 8 and not small_workspace.is_published(wanted)
    assert len(fetch_proof_journal(small_workspace, wanted)) == len(kept)
    process = subprocess.Popen([sys.executable, "-c", CODE, str(small_workspace.root), json.dumps(spec_to_json(spec))])
    deadline = time.monotonic() + 60
    while (
        time.monotonic() < deadline
        and process.poll() is None
        and len(proof_networks(read_journal(folder))) == len(kept)
    ):
        time.sleep(0.005)
    process.kill()
    process.wait()
    kept = proof_networks(read_journal(folder))
    assert compute(small_workspace, spec, "cpu") == (wanted, False)
    everything = proof_networks(read_journal(folder))
    assert everything[: len(kept)] == kept and len(everything) == 8  # none is trained twice
    assert not (folder / "partial").exists() and (folder / "published" / "curated.safetensors").exists()
    resumed = rows(small_workspace, wanted)
    small_workspace.remove_run(wanted)
    compute(small_workspace, spec, "cpu", curated=curated)
    assert rows(small_workspace, wanted) == resumed


def test_a_cancelled_proof_says_so(small_workspace):
    curated = everyone(small_workspace, without=range(50))
    spec = plan_prove(small_workspace, "small", curated, "a test", TrainingSpec(epochs=40, seeds=4, batch_size=16))

    def listen(stage, fraction, left):
        if fraction > 0.2 and fetch_job(small_workspace, run_id(spec)).state == "running":
            cancel(small_workspace, run_id(spec))

    with pytest.raises(Cancelled):
        compute(small_workspace, spec, "cpu", listen, curated=curated)
    assert fetch_job(small_workspace, run_id(spec)).state == "cancelled"
    assert fetch_job(small_workspace, run_id(spec)).kind == "prove"


def test_a_run_without_its_set_or_with_another_is_refused(small_workspace):
    spec = plan_prove(small_workspace, "small", everyone(small_workspace, without=[0]), "a test", TRAINING)
    with pytest.raises(StorageError, match="does not hold its curated set; start the proof again: winnow prove"):
        compute(small_workspace, spec, "cpu")
    with pytest.raises(StorageError, match="is not the curated set of run"):
        compute(small_workspace, spec, "cpu", curated=everyone(small_workspace, without=[1]))
    assert small_workspace.run_ids() == []
