"""Scores through the pipeline: what trains, what is read again, and what is refused before anything starts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from engine.data.ingest import ingest
from engine.data.loader import load_split, normalization, to_float
from engine.data.request import IngestSpec
from engine.errors import ScoreInputError, SpecError
from engine.features.penultimate import compute_features
from engine.runs.choose import find_scores_run
from engine.runs.compute import compute
from engine.runs.feasible import score_seconds
from engine.runs.inputs import At, Inputs, computed, gaps, kept_epochs, needs_training, provides, required_epochs
from engine.runs.planning import plan_run
from engine.runs.work import Work
from engine.scores import inputs as declared_inputs
from engine.scores.complexity import cg_partial
from engine.scores.gap import solve_gap
from engine.scores.gradient import checkpoint_epochs
from engine.scores.inputs import INPUTS, find_input
from engine.scores.registry import find_score, resolve_scores
from engine.store.tensors import load_tensors
from engine.store.workspace import Workspace
from engine.training.kept import load_network
from engine.training.speed import Speed


def run(workspace: Workspace, scores: list[str], training: Any, **asked: Any) -> Path:
    """The published folder of a run of `small` on the CPU."""
    published, _ = compute(workspace, plan_run(workspace, "small", scores, training, **asked), "cpu")
    return workspace.published_dir(published)


def read(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "results.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def values(folder: Path, score: str) -> list[float]:
    return [v for (v,) in read(folder, f"SELECT value FROM scores WHERE score = '{score}' ORDER BY sample_id")]


def test_the_complexity_gap_trains_nothing(small_workspace, small_training):
    folder = run(small_workspace, ["cg", "cg_partial"], small_training())
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "results.duckdb"]
    assert read(folder, "SELECT count(*) FROM epochs") == [(0,)]
    samples = load_split(small_workspace, "small", "train")
    gap = solve_gap(samples.inputs.flatten(1), samples.labels)
    expected = cg_partial(gap.alpha, gap.inverse_diagonal).float()
    assert values(folder, "cg_partial") == expected.tolist()
    flagged = read(folder, "SELECT flagged, threshold FROM flags WHERE rule = 'cg_partial' ORDER BY sample_id")
    assert flagged == [(bool(v > 0), 0.0) for v in expected]
    note, left_out = json.loads(read(folder, "SELECT notes FROM run")[0][0])
    share = float((expected > 0).float().mean())
    assert (
        left_out
        == f"the rule cg_partial is left out of the vote: it flags {100 * share:.0f} % of the samples, more than a third"
    )
    assert note.startswith("complexity gap of the inputs: exact, float64")


def test_scores_of_networks_of_their_own_train_no_others(small_workspace, small_training):
    training = small_training()
    folder = run(small_workspace, ["confident_learning", "incv"], training)
    assert not (folder / "weights.safetensors").exists() and not (folder / "features.safetensors").exists()
    assert read(folder, "SELECT count(*) FROM epochs") == [(0,)]
    assert read(folder, "SELECT dynamics_run FROM run") == [(None,)]
    assert len(read(folder, "SELECT * FROM verdict")) == 1
    # The same values as where the seeds are trained too, which is where another score reads them.
    whole = run(small_workspace, ["confident_learning", "incv", "el2n"], training)
    assert (whole / "weights.safetensors").exists()
    for score in ("confident_learning", "incv"):
        assert values(folder, score) == values(whole, score)
    # A sampler that reads a network finds the run that has one, however old.
    alone = run(small_workspace, ["confident_learning"], small_training(epochs=2))
    found = find_scores_run(small_workspace, "small", ["kcenter"])
    assert found == whole.parent.name and alone.exists()


def test_tracin_reads_features_and_outputs_of_the_same_networks_in_one_pass(small_workspace, small_training):
    training = small_training(epochs=4)
    folder = run(small_workspace, ["tracin_self", "tracin_validation"], training)
    samples, test = (load_split(small_workspace, "small", split) for split in ("train", "test"))
    mean, std = normalization(samples)
    own, influence = torch.zeros(len(samples)), torch.zeros(len(samples))
    for epoch in checkpoint_epochs(4):
        network = load_network(folder, training, samples.inputs.shape[1:], samples.classes, 0, epoch)
        errors, rows = [], []
        for part in (samples, test):
            inputs = to_float(part.inputs, mean, std)
            with torch.no_grad():
                errors.append(network(inputs).softmax(1) - functional.one_hot(part.labels, part.classes))
                rows.append(functional.pad(compute_features(network, inputs), (0, 1), value=1.0))
        own += training.lr * errors[0].square().sum(1) * rows[0].square().sum(1)
        influence += training.lr * ((errors[0] @ errors[1].T) * (rows[0] @ rows[1].T)).mean(1)
    assert values(folder, "tracin_self") == pytest.approx(own.tolist(), rel=1e-4)
    assert values(folder, "tracin_validation") == pytest.approx(influence.tolist(), rel=1e-3, abs=1e-6)


def test_the_stochastic_form_and_standardized_inputs_are_runs_of_their_own(small_workspace, small_training):
    exact = run(small_workspace, ["cg"], small_training())
    drawn = run(small_workspace, ["cg"], small_training(), complexity="stochastic")
    shifted = run(small_workspace, ["cg"], small_training(), standardize=True)
    assert len({exact, drawn, shifted}) == 3
    ranks = np.argsort(np.argsort([values(f, "cg") for f in (exact, drawn, shifted)]))
    agreement = np.corrcoef(ranks)[0]
    assert 0.8 < agreement[1] < 1 and agreement[2] < 1
    assert "stochastic, 10 runs of 3 negatives per positive" in read(drawn, "SELECT notes FROM run")[0][0]


def test_every_score_reads_a_published_training(small_workspace, small_training):
    training = small_training()
    first = run(small_workspace, ["el2n"], training)
    later = run(small_workspace, ["nli", "cg_feature", "near_duplicate", "knn_shapley"], training)
    assert not (later / "weights.safetensors").exists()
    assert read(later, "SELECT dynamics_run FROM run") == [(first.parent.name,)]
    # The same scores, trained for and scored in one go.
    small = Workspace.open(small_workspace.root.parent / "other", create=True)
    ingest(small, IngestSpec(name="small", source="digits", limit=200, noise="symmetric:0.2"))
    once = run(small, ["nli", "cg_feature", "near_duplicate", "knn_shapley", "el2n"], training)
    for score in ("nli", "cg_feature", "near_duplicate", "knn_shapley"):
        assert values(later, score) == values(once, score)


def test_weights_are_kept_of_the_epochs_that_scores_read(small_workspace, small_training):
    folder = run(small_workspace, ["nli@2"], small_training(epochs=12))
    kept = {p.name: load_tensors(p) for p in folder.glob("weights*")}
    assert {"weights.safetensors", "weights-epoch2.safetensors", "weights-epoch10.safetensors"} <= set(kept)
    assert kept["weights-epoch2.safetensors"][1]["epoch"] == 2
    early, late = (kept[name][0]["seed0.1.weight"] for name in ("weights-epoch2.safetensors", "weights.safetensors"))
    assert early.shape == late.shape and not np.allclose(early, late)


def test_an_epoch_that_was_not_kept_is_trained_again(small_workspace, small_training):
    training = small_training(epochs=10)  # keeps every second epoch for TracIn
    first = run(small_workspace, ["nli"], training)
    again = run(small_workspace, ["nli@1"], training)
    assert read(again, "SELECT dynamics_run FROM run") == [(again.parent.name,)]
    assert values(first, "nli") != values(again, "nli@1")
    # Now it was kept: a third run reads the one that has it.
    third = run(small_workspace, ["nli@1", "random"], training)
    assert read(third, "SELECT dynamics_run FROM run") == [(again.parent.name,)]
    assert values(third, "nli@1") == values(again, "nli@1")


def test_too_little_memory_is_told_before_anything_starts(small_workspace, small_training, monkeypatch):
    monkeypatch.setattr(gaps, "available_bytes", lambda device: 3_500_000)
    with pytest.raises(SpecError) as error:
        run(small_workspace, ["aum", "cg"], small_training())
    assert str(error.value).startswith("the complexity gap of 200 samples needs 0.0 GB of memory")
    assert "--complexity stochastic needs" in str(error.value)
    assert small_workspace.published_runs() == []


def test_more_neighbors_than_samples_are_refused(small_workspace, small_training):
    with pytest.raises(
        ScoreInputError, match="--neighbors is 200; this dataset has 200 training samples, so allowed: 1 to 199"
    ):
        run(small_workspace, ["nli"], small_training(), neighbors=200)
    assert small_workspace.published_runs() == []


def test_a_score_against_the_test_split_needs_one(small_workspace, small_training):
    samples = np.eye(30, dtype=np.uint8)[:, :16].reshape(30, 4, 4) * 200 + 1
    source = small_workspace.root.parent / "images"
    for label in range(3):
        (source / str(label)).mkdir(parents=True)
    for i, pixels in enumerate(samples):
        Image.fromarray(pixels).save(source / str(i % 3) / f"{i}.png")
    ingest(small_workspace, IngestSpec(name="alone", source=str(source), test_fraction=0.0))
    with pytest.raises(SpecError, match="dataset 'alone' has no test split to validate against"):
        compute(small_workspace, plan_run(small_workspace, "alone", ["knn_shapley"], small_training()), "cpu")
    everything = plan_run(small_workspace, "alone", ["all"], small_training())
    assert "knn_shapley" not in everything.scores and "nli" in everything.scores


def test_a_class_of_one_is_named_before_anything_starts(small_workspace, small_training):
    labels = load_split(small_workspace, "small", "train").labels
    table = small_workspace.root.parent / "labels.csv"
    changed = torch.where(labels == 9, 8, labels)
    changed[0] = 9
    table.write_text("label\n" + "\n".join(str(v) for v in changed.tolist()) + "\n")
    ingest(small_workspace, IngestSpec(name="single", source="dataset:small", labels=f"{table}:label"))
    spec = plan_run(small_workspace, "single", ["cg"], small_training())
    with pytest.raises(ScoreInputError, match="class 9 has a single sample"):
        compute(small_workspace, spec, "cpu")


def test_a_blank_image_is_named_before_anything_starts(small_workspace, small_training, tmp_path):
    for label in range(2):
        (tmp_path / "set" / str(label)).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((4, 4), 0 if (label, i) == (1, 2) else 9 + i, np.uint8)).save(
                tmp_path / "set" / str(label) / f"{i}.png"
            )
    ingest(small_workspace, IngestSpec(name="blank", source=str(tmp_path / "set"), test_fraction=0.0))
    with pytest.raises(ScoreInputError, match="the input of sample 6 is all zeros"):
        compute(small_workspace, plan_run(small_workspace, "blank", ["cg"], small_training()), "cpu")


def test_a_declared_input_is_computed_once_with_those_beside_it(small_workspace, small_training, monkeypatch):
    monkeypatch.setattr(declared_inputs, "INPUTS", dict(INPUTS))
    monkeypatch.setattr(computed, "INPUTS", declared_inputs.INPUTS)
    calls = []

    @provides(cost="free", along={"halves": "(N,) half of them", "count": "how many"})
    def places(run, at):
        """(N,) places of the samples."""
        calls.append(at)
        there = torch.arange(len(run.samples))
        return there, there / 2, len(there)

    assert [find_input(name).axis for name in ("places", "halves", "count")] == [0, 0, None]
    samples = load_split(small_workspace, "small", "train")
    spec = plan_run(small_workspace, "small", ["random"], small_training(), neighbors=0, embedding="none")
    nothing = Path("/nowhere")
    inputs = Inputs(small_workspace, spec, samples, samples, None, None, nothing, nothing, None, None)  # type: ignore[arg-type]
    assert inputs.get("halves")[3] == 1.5 and inputs.get("count") == 200
    assert torch.equal(inputs.get("places"), torch.arange(200)) and calls == [None]
    with pytest.raises(TypeError, match="input p_given is not computed for a run"):
        inputs.get("p_given", At(0, 1))


def test_every_input_has_a_function_but_those_that_are_handed_out():
    handed_out = {name for name, declared in INPUTS.items() if declared.compute is None}
    assert handed_out == {"generator"} | {name for name, declared in INPUTS.items() if declared.dynamics}
    assert {d.beside for d in INPUTS.values()} - {""} <= {d.name for d in INPUTS.values() if not d.beside}


def test_the_epochs_that_are_required_are_those_that_the_scores_read(small_training):
    training = small_training(epochs=30, seeds=3)
    assert required_epochs(resolve_scores(["aum", "cg", "el2n@5"]), training) == {30: 1}
    assert required_epochs(resolve_scores(["nli@4", "grand"]), training) == {30: 1, 4: 1, 20: 3}
    assert required_epochs(resolve_scores(["tracin_self"]), training) == {6: 1, 12: 1, 18: 1, 24: 1, 30: 1}
    kept = kept_epochs(resolve_scores(["nli@4"]), training)
    assert kept.items() >= {4: 1, 6: 1, 10: 1, 12: 1, 18: 1, 20: 3, 24: 1, 30: 3}.items()


def test_a_file_stands_in_for_a_trained_network(small_workspace, small_training):
    plain = plan_run(small_workspace, "small", ["consistency", "knn_vote", "nli"], small_training())
    assert all(needs_training(found, plain) for found in resolve_scores(plain.scores))
    given = replace(plain, cscores="scores.npz", features="torchvision:resnet18:weights.pth")
    assert [f.name for f in resolve_scores(given.scores) if needs_training(f, given)] == ["nli"]


def test_the_seconds_of_an_input_count_for_the_first_score_that_reads_it(small_workspace, small_training):
    spec = plan_run(small_workspace, "small", ["cg_forward", "cg", "consistency", "aum"], small_training(epochs=10))
    scores = [find_score(name) for name in ("cg_forward", "cg", "consistency", "aum")]
    speed = Speed(start=0.01, sample=1e-4, passing=2e-5, batch_size=64, workers=4, parameters=1)
    seconds = score_seconds(Work(spec, 10_000, 0, speed), scores)
    assert seconds["cg_forward"] == pytest.approx(20.15) and seconds["cg"] == pytest.approx(0.15)
    # Ten networks four at a time, of ten epochs of 79 steps on 5,000 samples; all samples are passed five times.
    assert seconds["consistency"] == pytest.approx(0.15 + 3 * 10 * (79 * 0.01 + 5_000 * 1e-4) + 5 * 10_000 * 2e-5)
    assert seconds["dynamics"] == pytest.approx(0.15) and "aum" not in seconds


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_tracin_takes_the_learning_rate_with_which_an_epoch_was_trained(small_workspace, small_training, schedule):
    training = small_training(epochs=8, seeds=1, schedule=schedule)
    folder = run(small_workspace, ["tracin_self"], training)
    rates = [lr for (lr,) in read(folder, "SELECT lr FROM epochs ORDER BY epoch")]
    samples = load_split(small_workspace, "small", "train")
    expected = torch.zeros(200)
    for epoch in checkpoint_epochs(8):
        network = load_network(folder, training, samples.inputs.shape[1:], 10, 0, epoch)
        inputs = to_float(samples.inputs, *normalization(samples))
        with torch.no_grad():
            errors = network(inputs).softmax(1) - functional.one_hot(samples.labels, 10)
            squares = compute_features(network, inputs).square().sum(1)
        # After the last epoch a cosine would be at 0, and a step has dropped where the next epoch begins.
        assert rates[epoch - 1] > 0
        expected += rates[epoch - 1] * errors.square().sum(1) * (1 + squares)
    assert values(folder, "tracin_self") == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)
