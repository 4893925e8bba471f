"""`winnow relabel` as people type it: what it prints, what it refuses, and how its labels get into an exported set."""

import csv
import json

import numpy as np
import pytest
from given_verdicts import JUDGED, give_verdict
from test_cli import refused
from test_cli import started as winnow

import engine
from engine.errors import ScoreInputError, SpecError
from engine.queries.connection import connected
from engine.queries.version_words import command_words, recipe_sentences
from engine.queries.versions import create_version, fetch_version_set, reproduce
from engine.runs.compute import compute
from engine.runs.options import plan_relabel_from
from engine.store.versions import stored_version


def test_from_suggestions_to_an_export_with_both_labels(scored_workspace, tmp_path):
    root = scored_workspace.root
    done = winnow("relabel", "small", "--method", "neighbors", "--neighbors", 5, workspace=root)
    assert done.returncode == 0, done.stderr
    run = done.stderr.split()[1]
    assert "expected right" in done.stdout and "right by the truth" in done.stdout
    assert f"winnow version create small NAME --relabel-above 0.9 --run {run}" in done.stdout.replace("\n", "")
    again = json.loads(
        winnow("relabel", "small", "--method", "neighbors", "--neighbors", 5, "--json", workspace=root).stdout
    )
    assert (
        again["existed"] and again["run_id"] == run and again["networks"] == [] and again["changes"][0]["from"] == 0.0
    )
    with connected(scored_workspace, "small", [run]) as connection:
        rows = connection.execute(
            "SELECT sample_id, label, suggested_label, confidence, suggested_label = true_label FROM suggestions "
            "JOIN samples USING (sample_id)"
        ).fetchall()
    above = {i: (label, other) for i, label, other, confidence, _ in rows if confidence >= 0.8}
    counted = {row["from"]: row for row in again["changes"]}
    assert counted[0.8]["labels"] == len(above) > 3
    assert np.isclose(counted[0.8]["right"], np.mean([right for *_, confidence, right in rows if confidence >= 0.8]))
    made = winnow("version", "create", "small", "corrected", "--relabel-above", 0.8, "--run", run, workspace=root)
    assert made.returncode == 0, made.stderr
    file = tmp_path / "corrected.csv"
    done = winnow("export", "small", "--version", "corrected", "--to", file, workspace=root)
    assert done.returncode == 0, done.stderr
    written = {int(row["sample_id"]): row for row in csv.DictReader(file.read_text().splitlines())}
    assert len(written) == 200
    for i, row in written.items():
        given, label = above.get(i, (int(row["given_label"]), int(row["given_label"])))
        assert (int(row["given_label"]), int(row["label"])) == (given, label)


def test_a_version_takes_the_suggestions_of_one_run_and_the_shortlist_of_another(scored_workspace):
    (trusted,) = scored_workspace.published_runs()
    give_verdict(scored_workspace.root, trusted, range(100, 200), 60, JUDGED)  # the shortlist: samples 100 to 159
    spec = plan_relabel_from(scored_workspace, "small", "neighbors", {"neighbors": 5})
    run, _ = compute(scored_workspace, spec, "cpu")
    with connected(scored_workspace, "small") as connection:
        rows = connection.execute(
            "SELECT sample_id, suggested_label FROM suggestions WHERE run_id = ? AND confidence >= 0.8", [run]
        ).fetchall()
        given = dict(connection.execute("SELECT sample_id, label FROM samples WHERE split = 'train'").fetchall())
        listed = {i for (i,) in connection.execute("SELECT sample_id FROM shortlist WHERE listed").fetchall()}
    assert len(listed) == 60 and listed & dict(rows).keys() and dict(rows).keys() - listed
    options = {"relabel_above": 0.8, "drop_shortlist": True, "decisions": False}
    made = create_version(scored_workspace, "small", "both", run=run, **options)
    ids, labels = fetch_version_set(scored_workspace, "small", "both")
    expected = {i: label for i, label in given.items() if i not in listed} | dict(rows)
    assert dict(zip(ids.tolist(), labels.tolist(), strict=True)) == expected
    assert (made.recipe.run, made.recipe.suggests) == (trusted, run)
    assert reproduce(scored_workspace, stored_version(scored_workspace, "small", "both")).same
    sentences = " ".join(text for text, _ in recipe_sentences(made.recipe, made.facts))
    assert f"suggestion of run {run}" in sentences and f"the rest of the shortlist of run {trusted}" in sentences
    words = command_words(made.recipe, "again")
    assert words[words.index("--run") + 1] == run  # the same command gives the same set
    done = winnow(*words, workspace=scored_workspace.root)
    assert done.returncode == 0, done.stderr
    assert stored_version(scored_workspace, "small", "again").hash == made.hash


def test_rop_prints_its_subsets_beside_a_draw(small_workspace):
    words = ("--method", "rop", "--learner", "cross-entropy", "--keep", "0.6", "--epochs", 2, "--nli-epochs", 2)
    done = winnow("relabel", "small", *words, workspace=small_workspace.root)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:4] == ["kept", "subset", "learner", "samples"]
    assert [line[:5] for line in lines[1:3]] == [
        ["60", "%", "rop", "cross-entropy", "120"], ["60", "%", "random", "cross-entropy", "120"],
    ]  # fmt: skip


def test_what_is_refused_in_one_line(scored_workspace):
    root = scored_workspace.root
    refused(winnow("relabel", "small", "--method", "sopp", workspace=root), "unknown method 'sopp'", "sop+")
    refused(winnow("relabel", "small", "--method", "rop", "--keep", "0.5,2", workspace=root), "--keep has 2", "0 to 1")
    refused(winnow("relabel", "smal", "--method", "vote", workspace=root), "did you mean 'small'")
    assert len(scored_workspace.run_ids()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": ""}, "--keep is empty; allowed: shares above 0 to 1"),
        ({"keep": []}, "--keep is empty"),
        ({"beta": 0.1}, "--beta does nothing without --select ccs"),
    ],
)
def test_options_that_do_nothing_are_refused(scored_workspace, options, said):
    with pytest.raises(SpecError, match=said):
        plan_relabel_from(scored_workspace, "small", "rop", options)


@pytest.mark.parametrize("method", ["neighbors", "rop"])
def test_as_many_neighbors_as_samples_are_refused_before_anything_is_written(scored_workspace, method):
    plan = plan_relabel_from(scored_workspace, "small", method, {"neighbors": 200})
    with pytest.raises(ScoreInputError, match="--neighbors is 200; this dataset has 200 training samples, so allowed"):
        compute(scored_workspace, plan, "cpu")
    assert len(scored_workspace.run_ids()) == 1


def test_in_python_it_is_the_run_of_the_command_line(scored_workspace):
    small = engine.open(scored_workspace.root)["small"]
    run = small.relabel("vote", progress=False)
    done = json.loads(winnow("relabel", "small", "--method", "vote", "--json", workspace=scored_workspace.root).stdout)
    assert done["existed"] and done["run_id"] == run.id
    found = run.suggestions()
    assert (
        list(found) == ["sample_id", "suggested_label", "confidence", "method"]
        and found["confidence"].between(0, 1).all()
    )
    assert run.relabelings().empty and run.spec["kind"] == "relabel"
    trained = small.relabel("rop", keep=[0.6], learner="cross-entropy", epochs=2, nli_epochs=1, progress=False)
    assert trained.relabelings()["subset"].tolist() == ["rop", "random"]
